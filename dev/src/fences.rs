//! SAFETY.md names every file that allows unsafe code.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Calls `see` with every Rust file below a directory.
    fn sources(directory: &Path, see: &mut impl FnMut(&Path, &str)) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                sources(&path, see);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                see(&path, &fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn safety_names_every_file_that_allows_unsafe_code() {
        let top = crate::run::top();
        let safety = fs::read_to_string(top.join("SAFETY.md")).unwrap();
        let mut fenced = 0;
        for directory in ["crates", "dev", "fuzz", "jits", "oracle"] {
            sources(&top.join(directory), &mut |path, text| {
                let allows = text.contains("allow(") && text.contains("unsafe_code");
                if allows && !path.ends_with("fences.rs") {
                    let name = path.strip_prefix(&top).unwrap().display().to_string();
                    assert!(
                        safety.contains(&name),
                        "{name} allows unsafe code; SAFETY.md does not say so"
                    );
                    fenced += 1;
                }
            });
        }
        assert!(fenced > 0, "nothing was looked at");
    }
}
