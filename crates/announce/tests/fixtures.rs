//! The files of vectors/announce are what their README says.

use framewalk_sframe::spec::Version;
use framewalk_sframe::{Arch, check};
use object::elf::{self, FileHeader64, PT_GNU_SFRAME, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSection};
use std::path::Path;

#[test]
fn each_has_a_sound_section_in_a_segment_of_its_own() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/announce");
    let files = [
        ("calls.v2.so", Version::V2, 7),
        ("calls.v3.so", Version::V3, 7),
        ("caller.v3", Version::V3, 6),
        ("fixed.v3", Version::V3, 5),
    ];
    for (name, version, functions) in files {
        let data = std::fs::read(folder.join(name)).unwrap();
        let file = object::File::parse(&*data).unwrap();
        let section = file.section_by_name(".sframe").unwrap();
        let report = check(section.data().unwrap(), section.address());
        assert!(report.is_sound(), "{name}: {report}");
        let header = report.header().unwrap();
        assert_eq!(
            (header.version, header.arch),
            (version, Arch::Amd64),
            "{name}"
        );
        assert_eq!(report.functions(), functions, "{name}");

        let header = FileHeader64::<Endianness>::parse(&*data).unwrap();
        let endian = header.endian().unwrap();
        let segments = header.program_headers(endian, &*data).unwrap();
        let range = |segment: &elf::ProgramHeader64<_>| {
            let start = segment.p_vaddr(endian);
            start..start + segment.p_filesz(endian)
        };
        let announced = segments.iter().find(|s| s.p_type(endian) == PT_GNU_SFRAME);
        let announced = range(announced.unwrap());
        assert_eq!(
            announced,
            section.address()..section.address() + section.size(),
            "{name}"
        );
        let mut loaded = segments
            .iter()
            .filter(|s| s.p_type(endian) == PT_LOAD)
            .map(range);
        assert!(
            loaded.any(|load| load.start <= announced.start && announced.end <= load.end),
            "{name}: not loaded"
        );
    }
}
