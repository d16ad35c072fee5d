//! What the fuzz targets do with the fuzzer's bytes. The targets themselves (`targets`) are glue; what has to hold is
//! said by the oracle that the property tests of the announce crate use, too.

mod area;
#[path = "../../crates/announce/tests/looker/mod.rs"]
mod looker;

pub use area::area;

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Without the fuzzer: what it once found interesting stays harmless.
    #[test]
    fn the_corpus_passes() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/area");
        let mut files = 0;
        for file in std::fs::read_dir(corpus).unwrap() {
            let path = file.unwrap().path();
            // A failure says which.
            println!("{}", path.display());
            super::area(&std::fs::read(path).unwrap());
            files += 1;
        }
        assert!(files > 0);
    }
}
