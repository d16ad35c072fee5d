//! The kernel's walk, compiled for this process.

use super::Target;
use super::bytes::Bytes;
use framewalk_kernel::Walked;
use framewalk_kernel::host::{How, Object, Read, World};
use framewalk_walk::Start;
use framewalk_walk::registry::Announced;

impl Target for World {
    const OBJECTS: bool = true;
    const TOPMOST: bool = true;

    fn clear(&mut self) {
        World::clear(self);
    }

    fn object(&mut self, number: u32, object: Object<'_>) {
        World::object(self, number, object).expect("just written");
    }

    fn map(&mut self, start: u64, end: u64, executable: bool, object: Option<(u32, u64)>) {
        World::map(self, start, end, executable, object);
    }

    fn mapped(&mut self, leaf: u32) {
        World::mapped(self, leaf);
    }

    fn announce(&mut self, address: u64, len: u64, read: &mut Read<'_>) -> Option<Result<(), i64>> {
        Some(World::announce(self, false, address, address, len, read))
    }

    fn walk(&mut self, start: &Start, how: How, memory: &Bytes, _: &[Announced]) -> Walked {
        World::walk(self, start, how, &mut |at, into| memory.read(at, into))
    }

    fn walk_by(&mut self, start: &Start, how: How, read: &mut Read<'_>) -> Option<Walked> {
        Some(World::walk(self, start, how, read))
    }
}
