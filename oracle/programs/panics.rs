//! Panics through several frames, caught, carried to another thread, and raised again.

use std::any::Any;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};

struct Count<'a>(&'a mut u64);

impl Drop for Count<'_> {
    fn drop(&mut self) {
        *self.0 += black_box(1);
    }
}

#[inline(never)]
fn deep(n: u64, sum: &mut u64) {
    let count = Count(sum);
    if n == 0 {
        return panicking();
    }
    deep(n - 1, count.0);
    black_box(&count);
}

#[unsafe(no_mangle)]
#[inline(never)]
fn panicking() {
    panic_any(black_box(7_u64));
}

/// Recursion through closures, boxes, formatting and maps: what Rust code is made of.
#[inline(never)]
fn ordinary(n: u64) -> String {
    let mut numbers: Vec<u64> = (0..n).map(|i| i * 7919 % 101).collect();
    numbers.sort_by_key(|i| i.wrapping_mul(31));
    let words: std::collections::BTreeMap<String, u64> =
        numbers.iter().map(|i| (format!("{i:04}"), *i)).collect();
    let call: Box<dyn Fn(u64) -> u64> = Box::new(move |i| i + words.len() as u64);
    numbers.iter().map(|i| call(*i).to_string()).collect()
}

fn caught(n: u64, sum: &mut u64) -> Box<dyn Any + Send> {
    let result = catch_unwind(AssertUnwindSafe(|| deep(n, sum)));
    result.expect_err("it panics")
}

#[unsafe(no_mangle)]
#[inline(never)]
fn done() {
    black_box(());
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok());
    std::panic::set_hook(Box::new(|_| {}));
    let mut sum = 0;
    for round in 0..rounds.unwrap_or(0_u64) {
        let payload = caught(round % 5, &mut sum);
        let again = catch_unwind(AssertUnwindSafe(|| resume_unwind(payload)));
        assert!(again.is_err());
        let other = std::thread::spawn(move || deep(round % 3, &mut 0)).join();
        assert!(other.is_err());
        black_box(ordinary(round % 20));
        done();
    }
}
