//! The names that platforms give to settings.

use std::fs;
use std::path::Path;

use houseboat::config::Config;
use houseboat::settings::Auto;
use houseboat::settings::NoSettings;
use tempfile::TempDir;

const KEYS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "aws"),
    ("AWS_SECRET_ACCESS_KEY", "aws-secret"),
];

fn load_in(folder: &Path, variables: &[(&str, &str)]) -> Result<Config<NoSettings>, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Config::load_from(folder, variables.iter().map(owned)).map_err(|error| error.to_string())
}

fn load(variables: &[(&str, &str)]) -> Config<NoSettings> {
    load_in(Path::new("no such folder"), variables).unwrap()
}

fn problem(variables: &[(&str, &str)]) -> String {
    load_in(Path::new("no such folder"), variables).unwrap_err()
}

#[test]
fn the_keys_of_a_machine_alone_mean_nothing() {
    let keys = [
        &KEYS[..],
        &[
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ENDPOINT_URL", "not an address"),
            ("AWS_SECRET_ACCESS_KEY_FILE", "no such file"),
            ("LITESTREAM_PATH", "/"),
        ],
    ]
    .concat();
    let config = load(&keys);
    assert!(!config.replication.is_on());
    assert_eq!(
        config.replication,
        houseboat::replication::Settings::default()
    );
}

#[test]
fn the_bucket_turns_replication_on() {
    let config = load(&[&KEYS[..], &[("LITESTREAM_BUCKET", "site")]].concat());
    assert_eq!(config.replication.bucket, "site");
    assert_eq!(config.replication.access_key_id.expose(), "aws");
    assert_eq!(config.replication.secret_access_key.expose(), "aws-secret");
    let line = "bucket = \"site\"  # LITESTREAM_BUCKET\n";
    assert!(config.to_string().contains(line), "{config}");
}

#[test]
fn a_bucket_for_something_else_does_not() {
    // It may be one of uploads, that the world can read.
    for name in ["S3_BUCKET", "AWS_BUCKET"] {
        let config = load(&[&KEYS[..], &[(name, "uploads")]].concat());
        assert_eq!(config.replication.bucket, "", "{name}");
    }
}

#[test]
fn a_bucket_in_a_file_or_in_a_name_of_ours_counts_too() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("development.toml");
    fs::write(file, "[replication]\nbucket = \"site\"").unwrap();
    let config = load_in(folder.path(), &KEYS).unwrap();
    assert_eq!(config.replication.access_key_id.expose(), "aws");
    let ours = [("HOUSEBOAT_REPLICATION__BUCKET", "site")];
    let config = load(&[&KEYS[..], &ours].concat());
    assert_eq!(config.replication.access_key_id.expose(), "aws");
}

#[test]
fn a_bucket_without_keys_is_a_problem() {
    let problem = problem(&[("LITESTREAM_BUCKET", "site")]);
    assert_eq!(
        problem,
        "replication.access_key_id = [redacted] (from default) must be set where there is a bucket\n\
         replication.secret_access_key = [redacted] (from default) must be set where there is a bucket"
    );
}

/// Sets every name of `names` in turn, from the last to the first, and sees that the new one counts.
fn assert_order(names: &[&str], value: impl Fn(&Config<NoSettings>) -> String) {
    let mut variables = vec![("LITESTREAM_BUCKET".to_owned(), "site".to_owned())];
    variables.extend(KEYS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables.retain(|(name, _)| !names.contains(&name.as_str()));
    for (index, name) in names.iter().enumerate().rev() {
        let text = if name.contains("ENDPOINT") {
            format!("https://{index}.example")
        } else {
            format!("value-{index}")
        };
        variables.push(((*name).to_owned(), text.clone()));
        let config: Config<NoSettings> =
            Config::load_from(Path::new("none"), variables.clone()).unwrap();
        assert_eq!(value(&config), text, "{name}");
        let origin = format!("  # {name}\n");
        assert!(config.to_string().contains(&origin), "{config}");
    }
}

#[test]
fn of_two_names_the_first_counts_and_is_named() {
    assert_order(
        &["HOUSEBOAT_REPLICATION__BUCKET", "LITESTREAM_BUCKET"],
        |config| config.replication.bucket.clone(),
    );
    assert_order(
        &[
            "HOUSEBOAT_REPLICATION__ENDPOINT",
            "LITESTREAM_ENDPOINT",
            "AWS_ENDPOINT_URL_S3",
            "AWS_ENDPOINT_URL",
            "S3_ENDPOINT",
        ],
        |config| config.replication.endpoint.clone(),
    );
    assert_order(
        &[
            "HOUSEBOAT_REPLICATION__REGION",
            "LITESTREAM_REGION",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            "S3_REGION",
        ],
        |config| config.replication.region.clone(),
    );
    assert_order(
        &[
            "HOUSEBOAT_REPLICATION__ACCESS_KEY_ID",
            "LITESTREAM_ACCESS_KEY_ID",
            "AWS_ACCESS_KEY_ID",
            "S3_ACCESS_KEY_ID",
        ],
        |config| config.replication.access_key_id.expose().to_owned(),
    );
    assert_order(
        &[
            "HOUSEBOAT_REPLICATION__SECRET_ACCESS_KEY",
            "LITESTREAM_SECRET_ACCESS_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "S3_SECRET_ACCESS_KEY",
        ],
        |config| config.replication.secret_access_key.expose().to_owned(),
    );
    assert_order(
        &["HOUSEBOAT_REPLICATION__PATH", "LITESTREAM_PATH"],
        |config| config.replication.path.clone(),
    );
}

#[test]
fn a_secret_may_be_in_a_file_that_a_name_of_a_platform_names() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "from-a-file\n").unwrap();
    let path = path.display().to_string();
    let rest = [("LITESTREAM_BUCKET", "site"), ("AWS_ACCESS_KEY_ID", "aws")];
    let file = ("LITESTREAM_SECRET_ACCESS_KEY_FILE", path.as_str());
    // The file is as good as its name without the ending: it comes before the second name.
    let config = load(&[&rest[..], &[file, KEYS[1]]].concat());
    assert_eq!(config.replication.secret_access_key.expose(), "from-a-file");
    let config = load(&[&rest[..], &[("S3_SECRET_ACCESS_KEY_FILE", &path), KEYS[1]]].concat());
    assert_eq!(config.replication.secret_access_key.expose(), "aws-secret");
    let twice = problem(&[&rest[..], &[file, ("LITESTREAM_SECRET_ACCESS_KEY", "x")]].concat());
    let expected = "replication.secret_access_key (from LITESTREAM_SECRET_ACCESS_KEY_FILE) is set twice: by \
                    LITESTREAM_SECRET_ACCESS_KEY as well";
    assert!(twice.contains(expected), "{twice}");
    let missing = [("AWS_SECRET_ACCESS_KEY_FILE", "no such file")];
    let missing = problem(&[&rest[..], &missing].concat());
    assert!(
        missing.contains("cannot be read from no such file"),
        "{missing}"
    );
    // A name of ours is enough: what else is wrong does not matter.
    let ours = [
        (
            "HOUSEBOAT_REPLICATION__SECRET_ACCESS_KEY_FILE",
            path.as_str(),
        ),
        ("AWS_SECRET_ACCESS_KEY_FILE", "no such file"),
    ];
    let config = load(&[&rest[..], &ours].concat());
    assert_eq!(config.replication.secret_access_key.expose(), "from-a-file");
}

#[test]
fn a_host_counts_where_it_is_an_address() {
    assert_eq!(load(&[("HOST", "0.0.0.0")]).server.host, "0.0.0.0");
    assert_eq!(load(&[("HOST", "::")]).server.host, "::");
    // What a shell exports.
    for name in ["laptop", "x86_64-pc-linux-gnu", "laptop.local:0"] {
        assert_eq!(load(&[("HOST", name)]).server.host, "127.0.0.1", "{name}");
    }
    let both = [("HOST", "0.0.0.0"), ("HOUSEBOAT_SERVER__HOST", "::1")];
    assert_eq!(load(&both).server.host, "::1");
}

#[test]
fn the_site_knows_all_of_its_hosts() {
    let hosts = |variables: &[(&str, &str)]| load(variables).server.hosts;
    assert!(hosts(&[]).is_empty());
    let coolify = (
        "COOLIFY_URL",
        "https://a.example, http://b.example:3000/path",
    );
    assert_eq!(hosts(&[coolify]), ["a.example", "b.example"]);
    assert_eq!(
        hosts(&[("COOLIFY_FQDN", "a.example,b.example")]),
        ["a.example", "b.example"]
    );
    assert!(hosts(&[("COOLIFY_URL", "*, no host, https://")]).is_empty());
    let own = ("HOUSEBOAT_SERVER__HOSTS", "[\"*.example\"]");
    assert_eq!(hosts(&[coolify, own]), ["*.example"]);
    for wrong in ["https://a.example", "a.example:80", "*a.example", "a b", ""] {
        let value = format!("[\"{wrong}\"]");
        let text = problem(&[("HOUSEBOAT_SERVER__HOSTS", &value)]);
        assert!(
            text.contains("server.hosts") && text.contains("must be names"),
            "{text}"
        );
    }
    for wrong in ["private networks", "10.0.0.0/33", "proxy.example"] {
        let value = format!("[\"{wrong}\"]");
        let text = problem(&[("HOUSEBOAT_SERVER__TRUSTED_PROXIES", &value)]);
        assert!(
            text.contains("server.trusted_proxies") && text.contains(wrong),
            "{text}"
        );
    }
}

#[test]
fn the_site_knows_its_address() {
    let url = |variables: &[(&str, &str)]| load(variables).server.url;
    assert_eq!(url(&[]), "");
    let coolify = ("COOLIFY_URL", "https://a.example,https://b.example");
    assert_eq!(url(&[coolify]), "https://a.example");
    let app = ("APP_URL", "https://app.example/status");
    assert_eq!(url(&[coolify, app]), "https://app.example/status");
    // Older versions of Coolify have it the other way round.
    let older = [
        ("COOLIFY_URL", "a.example,b.example"),
        ("COOLIFY_FQDN", "https://a.example,https://b.example"),
    ];
    assert_eq!(url(&older), "https://a.example");
    for wrong in [
        "app.example",
        "ftp://app.example",
        "https://",
        "https://app.example/?a=1",
        "https://user:pass@app.example",
    ] {
        let problem = problem(&[("APP_URL", wrong)]);
        let expected = format!(
            "server.url = \"{wrong}\" (from APP_URL) must be an address such as \"https://status.example\""
        );
        assert_eq!(problem, expected);
    }
}

#[test]
fn the_grace_is_the_platforms() {
    let grace = |variables: &[(&str, &str)]| load(variables).handover.grace_ms;
    let coolify = ("COOLIFY_RESOURCE_UUID", "x0c4");
    assert_eq!(grace(&[]), Auto::Given(10_000));
    assert_eq!(grace(&[("COOLIFY_RESOURCE_UUID", "")]), Auto::Given(10_000));
    assert_eq!(grace(&[coolify]), Auto::Given(30_000));
    let ours = ("HOUSEBOAT_HANDOVER__GRACE_MS", "60000");
    assert_eq!(grace(&[coolify, ours]), Auto::Given(60_000));
    // What is printed is what was set.
    let printed = load(&[coolify]).to_string();
    assert!(
        printed.contains("grace_ms = \"auto\"  # default"),
        "{printed}"
    );
}
