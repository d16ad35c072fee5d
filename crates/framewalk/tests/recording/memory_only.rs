//! `memory_only.c`, and what it puts into memory: code and an SFrame section that are in no file.

use super::targets::{Directory, compile, sources};
use framewalk_sframe::convert::{self, EhFrame};
use framewalk_sframe::{Arch, Builder};
use object::{Object, ObjectSection, ObjectSymbol};
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;

/// Where the code is linked and mapped to.
const TEXT: u64 = 0x6_1000_0000;
/// Where its section is mapped to.
const SECTION: u64 = 0x6_2000_0000;

/// The program, and what it shall put into memory.
pub(crate) struct MemoryOnly {
    pub(crate) program: PathBuf,
    pub(crate) blob: PathBuf,
    functions: Vec<(String, Range<u64>)>,
    _directory: Directory,
}

impl MemoryOnly {
    /// Builds both.
    pub(crate) fn build() -> MemoryOnly {
        let directory = Directory::new();
        let program = directory.path("memory_only");
        compile(&sources().join("memory_only.c"), &program, &[]);

        let linked = directory.path("linked");
        let status = Command::new("gcc")
            .args(["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls"])
            .args([
                "-ffreestanding",
                "-fcf-protection=none",
                "-fno-stack-protector",
            ])
            .args(["-fno-pic", "-no-pie", "-static", "-nostdlib"])
            .arg(format!("-Wl,-Ttext={TEXT:#x},-e,even,--build-id=none"))
            .arg("-o")
            .args([&linked, &sources().join("memory_text.c")])
            .status();
        assert!(status.expect("gcc is needed").success());

        let bytes = std::fs::read(&linked).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let section = |name| file.section_by_name(name).unwrap();
        let (text, eh_frame) = (section(".text"), section(".eh_frame"));
        assert_eq!(text.address(), TEXT);
        let described = EhFrame::new(eh_frame.data().unwrap(), eh_frame.address(), Arch::Amd64);
        let conversion = convert::eh_frame(described);
        assert!(conversion.functions.len() >= 3, "{conversion:?}");
        let mut builder = Builder::new(Arch::Amd64);
        builder.extend(conversion.functions);
        let sframe = builder.finish(SECTION).unwrap();

        let text_bytes = text.data().unwrap();
        let mut blob = b"FWBLOB\0\x01".to_vec();
        for word in [
            TEXT,
            text_bytes.len() as u64,
            file.entry(),
            SECTION,
            sframe.len() as u64,
        ] {
            blob.extend(word.to_le_bytes());
        }
        blob.extend(text_bytes);
        blob.extend(&sframe);
        let path = directory.path("blob");
        std::fs::write(&path, blob).unwrap();
        let functions = file.symbols().filter(|symbol| symbol.size() > 0);
        let range = |s: object::Symbol<'_, '_>| {
            let name = s.name().unwrap().to_string();
            (name, s.address()..s.address() + s.size())
        };
        MemoryOnly {
            program,
            blob: path,
            functions: functions.map(range).collect(),
            _directory: directory,
        }
    }

    /// The name of the function in memory that holds a pc.
    pub(crate) fn function(&self, pc: u64) -> Option<&str> {
        let mut functions = self.functions.iter();
        let (name, _) = functions.find(|(_, range)| range.contains(&pc))?;
        Some(name)
    }

    /// The functions of a whole stack in memory at `depth`, innermost first.
    pub(crate) fn stack(depth: usize) -> Vec<&'static str> {
        let descending = (0..=depth).map(|at| if at % 2 == 0 { "even" } else { "odd" });
        let mut stack: Vec<_> = descending.collect();
        stack.push("burn");
        stack.reverse();
        stack
    }
}
