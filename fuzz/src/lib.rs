//! What the fuzz targets do with the fuzzer's bytes. The targets themselves (`targets`) are glue; what has to hold is
//! said by the oracles that the property tests of the crates use, too.

#[path = "../../crates/walk/tests/registry"]
mod announced {
    #[allow(dead_code, unreachable_pub)]
    pub(crate) mod memory;
    pub(crate) mod oracle;
}
mod area;
#[path = "../../crates/audit/src"]
mod audit {
    pub(crate) mod headers;
}
mod elf;
// What reads files needs nothing else of the recorder, which is much.
#[path = "../../crates/framewalk/src/engines"]
mod engines {
    #[allow(dead_code, unreachable_pub)]
    pub(crate) mod rings {
        pub(crate) mod hostile;
        pub(crate) mod record;
    }
}
mod files;
#[path = "../../crates/sframe/tests/hostile/mod.rs"]
mod hostile;
#[path = "../../crates/announce/tests/looker/mod.rs"]
mod looker;
#[path = "../../crates/walk/tests/hostile/mod.rs"]
mod process;
#[path = "../../crates/framewalk/src/processes"]
#[allow(dead_code, unreachable_pub)]
mod processes {
    pub(crate) mod hostile;
    mod image;
    mod maps;
    mod source;
    mod table;
    mod task;

    pub(crate) use maps::Device;
    pub(crate) use source::ObjectSource;
    pub(crate) use table::{ROWS_PER_FUNCTION, Table};
}
mod registry;
mod section;
#[path = "../../crates/framewalk/src/symbols"]
#[allow(dead_code, unreachable_pub)]
mod symbols {
    pub(crate) mod hostile;
    mod layout;
    mod perf_map;
}
mod walk;

pub use area::area;
pub use files::{files, texts};
pub use registry::registry;
pub use section::{convert, section};
pub use walk::walk;

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Without the fuzzer: what it once found interesting stays harmless.
    fn replay(target: &str, run: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let mut files = 0;
        for file in std::fs::read_dir(corpus.join(target)).unwrap() {
            let path = file.unwrap().path();
            // A failure says which.
            println!("{}", path.display());
            run(&std::fs::read(path).unwrap());
            files += 1;
        }
        assert!(files > 0);
    }

    /// What the generators make of bytes that nobody chose.
    #[test]
    fn random_bytes_pass() {
        let targets: [fn(&[u8]); 7] = [
            super::area,
            super::convert,
            super::files,
            super::registry,
            super::section,
            super::texts,
            super::walk,
        ];
        // SplitMix64.
        let mut seed = 0u64;
        let mut random = || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        for round in 0..200 {
            let words = 1 + random() % 128;
            let bytes: Vec<u8> = (0..words).flat_map(|_| random().to_le_bytes()).collect();
            for (number, target) in targets.iter().enumerate() {
                // A failure says which.
                println!("round {round}, target {number}");
                target(&bytes);
            }
        }
    }

    #[test]
    fn the_corpus_of_areas_passes() {
        replay("area", super::area);
    }

    #[test]
    fn the_corpus_of_sections_passes() {
        replay("section", super::section);
    }

    #[test]
    fn the_corpus_of_conversions_passes() {
        replay("convert", super::convert);
    }

    #[test]
    fn the_corpus_of_files_passes() {
        replay("files", super::files);
    }

    #[test]
    fn the_corpus_of_texts_passes() {
        replay("texts", super::texts);
    }

    #[test]
    fn the_corpus_of_registries_passes() {
        replay("registry", super::registry);
    }

    #[test]
    fn the_corpus_of_walks_passes() {
        replay("walk", super::walk);
    }
}
