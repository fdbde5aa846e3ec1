//! The project's own files, read by the tests that keep it tidy.

use std::fs;
use std::path::Path;

/// A file of the project.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the package, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path))
            .unwrap_or_else(|error| panic!("{path} cannot be read: {error}"));
        let path = path.to_owned();
        Self { path, text }
    }

    /// The lines that are not comments, with their numbers.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self
            .text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The file's name without its ending.
    pub(crate) fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap();
        name.split('.').next().unwrap()
    }

    /// Where each of `needles` occurs in the code, as `file:line: needle`.
    pub(crate) fn occurrences(&self, needles: &[&str]) -> Vec<String> {
        let of_line = |(number, line): (usize, &str)| -> Vec<String> {
            let found = needles.iter().filter(|needle| line.contains(*needle));
            found
                .map(|needle| format!("{}:{number}: {needle}", self.path))
                .collect()
        };
        self.code().flat_map(of_line).collect()
    }
}

/// All files below `folder` whose names end in one of `endings`, in order.
pub(crate) fn sources(folder: &str, endings: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join(folder), &mut paths);
    paths.retain(|path| endings.iter().any(|ending| path.ends_with(ending)));
    assert!(
        !paths.is_empty(),
        "{folder}/ has no {endings:?}: the rule looks at nothing"
    );
    paths.sort();
    paths.iter().map(|path| Source::read(path)).collect()
}

fn collect(folder: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else {
            let relative = path.strip_prefix(root()).unwrap();
            paths.push(relative.to_str().unwrap().replace('\\', "/"));
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
