//! `framewalk agent`, `sections` and `doctor`, as people run them, on the kernel that is here.
//!
//! Each agent of a test has a folder of its own, so that tests do not disturb each other, nor an agent that
//! runs on this machine. A test without the privileges prints `SKIPPED test: why`.

mod doctor;
mod integrity;
mod late;
mod life;
mod running;
mod sections;
