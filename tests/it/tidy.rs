//! The rules of ARCHITECTURE.md that neither rustc nor clippy can hold.

use std::collections::HashMap;

use crate::support::sources::Source;
use crate::support::sources::sources;

const LINES_MAX: usize = 500;

#[test]
fn modules_use_only_the_floors_below() {
    let floors = floors(&Source::read("src/lib.rs"));
    let library = sources("src", &[".rs"])
        .into_iter()
        .filter(|file| !is_binary(file));
    let wrong = library
        .filter(|file| file.path != "src/lib.rs")
        .flat_map(|file| {
            let module = top_module(&file).to_owned();
            wrong_arrows(&file, &module, &floors)
        });
    report(
        "a module uses itself and the floors below it (src/lib.rs lists them)",
        wrong,
    );
}

#[test]
fn the_binary_uses_the_library_as_an_outside_crate_would() {
    let binary = sources("src", &[".rs"]).into_iter().filter(is_binary);
    let wrong = binary.flat_map(|file| {
        let inside = |(_, _, name): &(usize, String, String)| name != "site";
        let paths = crate_paths(&file).into_iter().filter(inside);
        let mut wrong: Vec<String> = paths
            .map(|(number, path, _)| at(&file, number, &path))
            .collect();
        for (number, line) in file.code() {
            let module = line.trim_start_matches("pub ").strip_prefix("mod ");
            let outside =
                file.path == "src/main.rs" && module.is_some_and(|name| !name.starts_with("site"));
            if outside || line.contains("#[path") {
                wrong.push(at(&file, number, line));
            }
        }
        wrong
    });
    report(
        "src/main.rs and src/site/ name the library `houseboat::` and have no module but `site`",
        wrong,
    );
}

#[test]
fn no_file_is_over_500_lines() {
    let files = sources("src", &[".rs"])
        .into_iter()
        .chain(sources("tests", &[".rs"]));
    let long = files.filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > LINES_MAX).then(|| at(&file, lines, "the end"))
    });
    report("a file has at most 500 lines", long);
}

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let readme = Source::read("README.md").text;
    for path in ["examples/hello.rs", "templates/hello.html"] {
        let file = Source::read(path).text;
        assert!(
            readme.contains(file.trim_end()),
            "README.md does not show {path} as it is"
        );
    }
}

#[test]
fn every_migration_is_embedded() {
    let code: String = sources("src", &[".rs"])
        .iter()
        .flat_map(|file| file.code().map(|(_, line)| line.to_owned() + "\n"))
        .collect();
    let missing = sources("migrations", &[""]).into_iter().filter(|file| {
        let mut places = code
            .match_indices("include_str!(")
            .map(|(start, _)| &code[start..]);
        !places.any(|place| {
            place
                .split(')')
                .next()
                .unwrap()
                .contains(&format!("/{}\"", file.path))
        })
    });
    report(
        "a migration is in its set, by `include_str!` in src/",
        missing.map(|file| at(&file, 1, "not embedded")),
    );
}

#[test]
fn every_setting_is_explained() {
    let files = ["config/default.toml", "config/site.toml"].map(Source::read);
    let bare = files.into_iter().flat_map(|file| {
        let lines: Vec<&str> = file.text.lines().collect();
        let bare = lines.iter().enumerate().filter(|(index, line)| {
            let is_key = line.starts_with(|first: char| first.is_ascii_lowercase());
            let above = index.checked_sub(1).map_or("", |above| lines[above]);
            is_key && line.contains('=') && !above.starts_with('#')
        });
        let at = bare.map(|(index, line)| at(&file, index + 1, line));
        at.collect::<Vec<_>>()
    });
    report("a setting has a comment on the line above it", bare);
}

#[test]
fn no_test_is_ignored() {
    let files = sources("src", &[".rs"])
        .into_iter()
        .chain(sources("tests", &[".rs"]));
    let needles = [concat!("#[", "ignore"), concat!(", ", "ignore)]")];
    report(
        "a slow test asks `support::slow`, and says that it was skipped",
        files.flat_map(|file| file.occurrences(&needles)),
    );
}

#[test]
fn every_file_is_named_for_its_noun() {
    let banned = [
        "util", "utils", "helper", "helpers", "common", "types", "models", "services", "prelude",
    ];
    let files = sources("src", &[".rs"])
        .into_iter()
        .chain(sources("tests", &[".rs"]));
    let vague = files.filter(|file| {
        let mut folders = file.path.split('/');
        banned.contains(&file.stem()) || folders.any(|folder| banned.contains(&folder))
    });
    report(
        "a file is named for what is in it",
        vague.map(|file| at(&file, 1, file.stem())),
    );
}

#[test]
fn only_connection_rs_opens_connections() {
    let files = except("src/database/connection.rs");
    report(
        "only src/database/connection.rs opens a connection",
        files.flat_map(|file| file.occurrences(&["Connection::open"])),
    );
}

#[test]
fn only_config_reads_the_environment() {
    let files = except("src/config/");
    let needles = ["env::var", "Env::raw", "Env::prefixed"];
    report(
        "only src/config/ reads the environment",
        files.flat_map(|file| file.occurrences(&needles)),
    );
}

#[test]
fn only_clock_rs_asks_for_the_time() {
    let files = except("src/database/clock.rs").chain(sources("migrations", &[".sql"]));
    let needles = [
        "Timestamp::now(",
        "SystemTime::now(",
        "Zoned::now(",
        "::now_utc(",
        "UNIX_EPOCH.elapsed(",
        "'now'",
        "unixepoch()",
        "CURRENT_TIMESTAMP",
    ];
    report(
        "wall-clock time enters in src/database/clock.rs",
        files.flat_map(|file| file.occurrences(&needles)),
    );
}

#[test]
fn pages_hold_no_inline_style_or_script() {
    let files = sources("templates", &[""])
        .into_iter()
        .chain(sources("src", &[".rs"]));
    let wrong = files.flat_map(|file| {
        let inline = file
            .code()
            .filter(|(_, line)| is_inline(&line.to_ascii_lowercase()));
        inline
            .map(|(number, line)| at(&file, number, line))
            .collect::<Vec<_>>()
    });
    report(
        "styles and scripts are files of their own, as the content security policy demands",
        wrong,
    );
}

fn report(rule: &str, violations: impl Iterator<Item = String>) {
    let violations: Vec<String> = violations.collect();
    assert!(
        violations.is_empty(),
        "{rule}:\n  {}",
        violations.join("\n  ")
    );
}

fn at(file: &Source, line: usize, what: &str) -> String {
    format!("{}:{line}: {}", file.path, what.trim())
}

fn except(path: &'static str) -> impl Iterator<Item = Source> {
    sources("src", &[".rs"])
        .into_iter()
        .filter(move |file| !file.path.starts_with(path))
}

fn is_binary(file: &Source) -> bool {
    file.path == "src/main.rs" || file.path.starts_with("src/site/")
}

/// Module to floor: a block of `mod` lines is a floor, and blank lines keep the blocks apart.
fn floors(lib: &Source) -> HashMap<String, usize> {
    let mut floors = HashMap::new();
    let mut floor = 0;
    for (_, line) in lib.code() {
        let module = line.trim_start_matches("pub ").strip_prefix("mod ");
        match module.and_then(|rest| rest.strip_suffix(';')) {
            Some(module) => _ = floors.insert(module.to_owned(), floor),
            None if line.trim().is_empty() => floor += 1,
            None => {}
        }
    }
    assert!(floors.len() > 1, "src/lib.rs lists no modules");
    floors
}

/// `database` for `src/database/wal.rs` and `config` for `src/config.rs`.
fn top_module(file: &Source) -> &str {
    let below = file.path.strip_prefix("src/").unwrap();
    below.split(['/', '.']).next().unwrap()
}

fn wrong_arrows(file: &Source, module: &str, floors: &HashMap<String, usize>) -> Vec<String> {
    let Some(own) = floors.get(module) else {
        return vec![at(file, 1, "its module is not in src/lib.rs")];
    };
    let is_below = |name: &str| floors.get(name).is_some_and(|floor| floor < own);
    let paths = crate_paths(file).into_iter();
    let wrong = paths.filter(|(_, _, name)| name != module && !is_below(name));
    let mut wrong: Vec<String> = wrong
        .map(|(number, path, _)| at(file, number, &path))
        .collect();
    wrong.extend(ways_around(file));
    wrong
}

/// Every `crate::name` of the code: line, path, name.
fn crate_paths(file: &Source) -> Vec<(usize, String, String)> {
    let mut paths = Vec::new();
    for (number, line) in file.code() {
        for (start, _) in line.match_indices("crate::") {
            let rest = &line[start + "crate::".len()..];
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let path = if end == 0 {
                line.to_owned()
            } else {
                format!("crate::{}", &rest[..end])
            };
            paths.push((number, path, rest[..end].to_owned()));
        }
    }
    paths
}

/// Paths that would reach the crate's root without the word `crate`.
fn ways_around(file: &Source) -> Vec<String> {
    let is_top = file.path.matches('/').count() == 1
        || file.path.ends_with("/mod.rs") && file.path.matches('/').count() == 2;
    let around = file.code().filter(|(_, line)| {
        let from_root = line.starts_with("use super::") || line.starts_with("pub use super::");
        line.contains("super::super::") || line.contains("extern crate") || is_top && from_root
    });
    around
        .map(|(number, line)| at(file, number, line))
        .collect()
}

/// Whether a line of HTML holds what belongs into a style sheet or a script.
fn is_inline(line: &str) -> bool {
    let handler = line.match_indices(" on").any(|(start, word)| {
        let rest = line[start + word.len()..].trim_start_matches(|c: char| c.is_ascii_lowercase());
        rest.starts_with("=\"") || rest.starts_with("='") || rest.starts_with("=\\\"")
    });
    // What has the nonce of its page is let through by the policy.
    if line.contains(" nonce=\"{{ nonce }}\"") {
        return false;
    }
    let script = line.split("<script").skip(1).any(|tag| {
        let body = tag.split_once('>').map_or("", |(_, body)| body);
        !tag.contains("src=") || !(body.is_empty() || body.starts_with("</script>"))
    });
    handler
        || script
        || line.contains(" style=")
        || line.contains("<style")
        || line.contains("=\"javascript:")
}
