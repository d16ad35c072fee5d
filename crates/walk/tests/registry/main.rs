//! The reference registry: docs/abi.md, check by check, and against a naive model.

mod areas;
mod checks;
mod life;
mod memory;
mod model;
mod oracle;
