//! The registry inside the kernel, by real prctl calls.
#![allow(unsafe_code)]

use framewalk_announce::abi;
use framewalk_kernel::{Error, Hook, Registry};
use framewalk_sframe::{Arch, Builder, CallerRule, Cfa, FunctionRows, Register, Row, Rule, Unwind};

#[test]
fn smoke() {
    let mut registry = Registry::load(Hook::ALL).unwrap();
    println!("{:?} {:?}", registry.hook(), registry.refusals());
    let rows = vec![Row {
        start: 0,
        unwind: Unwind::Outermost,
    }];
    let mut builder = Builder::new(Arch::Amd64);
    builder.extend(vec![FunctionRows::new(0x10000, 0x100, rows)]);
    let bytes = builder.finish(0).unwrap();
    let address = bytes.as_ptr() as u64;
    let mut builder = Builder::new(Arch::Amd64);
    builder.extend(vec![FunctionRows::new(
        0x7000_0000_0000,
        0x100,
        vec![Row {
            start: 0,
            unwind: Unwind::Outermost,
        }],
    )]);
    let bytes2 = builder.finish(address).unwrap();
    assert_eq!(bytes.len(), bytes2.len());
    let mut bytes = bytes;
    bytes.copy_from_slice(&bytes2);
    let r = unsafe {
        libc::prctl(
            abi::REGISTER as i32,
            7u64,
            bytes.as_ptr(),
            bytes.len(),
            0u64,
        )
    };
    println!("{r} {}", std::io::Error::last_os_error());
    println!("{:?}", registry.heard());
    println!("{:?} {:?}", registry.maps().all(), registry.maps().counts());
}
