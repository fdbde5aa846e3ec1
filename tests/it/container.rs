//! The image that is shipped, in a real Docker engine.

use std::time::Duration;

use houseboat::config::Config;
use houseboat::settings::NoSettings;

use crate::support::client::client;
use crate::support::client::post_form;
use crate::support::docker::Container;
use crate::support::docker::Volume;
use crate::support::docker::docker;
use crate::support::docker::shipped;
use crate::support::docker::try_docker;
use crate::support::docker::whole_image;
use crate::support::owner::SignedIn;
use crate::support::s3::S3;
use crate::support::s3::free_port;
use crate::support::site::Monitor;
use crate::support::waiting::slow;

const BYTES_MAX: u64 = 150_000_000;

async fn add_monitor(container: &Container, name: &str) {
    let monitor = Monitor::new(name, "http://nobody.invalid/");
    let owner = SignedIn::owner(&container.url(""), || container.log()).await;
    let answer = post_form(&owner.client, &container.url("/monitors"), &monitor.pairs()).await;
    assert_eq!(answer.unwrap().status(), 303, "{}", container.log());
}

async fn page(container: &Container) -> String {
    let answer = client().get(container.url("/")).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", container.log());
    answer.text().await.unwrap()
}

fn assert_stops(container: &Container) {
    let (code, took) = container.stop();
    assert_eq!(code, "0", "{}", container.log());
    assert!(
        took < Duration::from_secs(10),
        "it took {took:?}:\n{}",
        container.log()
    );
}

#[tokio::test]
async fn it_runs_alone_and_keeps_its_data_on_the_volume() {
    if !slow("the image alone") {
        return;
    }
    let volume = Volume::new();
    let container = Container::run(&[&volume.option()], shipped());
    container.healthy().await;
    let log = container.log();
    assert!(log.contains("nothing is replicated"), "{log}");
    add_monitor(&container, "Bakery").await;
    assert_stops(&container);
    container.start();
    container.healthy().await;
    assert!(page(&container).await.contains("Bakery"));
    assert_stops(&container);
    drop(container);
    // What a new version is: another container on the same volume.
    let container = Container::run(&[&volume.option()], shipped());
    container.healthy().await;
    assert!(page(&container).await.contains("Bakery"));
}

#[tokio::test]
async fn a_bucket_gives_it_back_what_its_disk_has_lost() {
    if !slow("the image with a bucket") {
        return;
    }
    let bucket = S3::start().await;
    let mut options = vec!["--read-only".to_owned(), "--tmpfs=/tmp".to_owned()];
    options.push("--tmpfs=/data:uid=10001,gid=10001".to_owned());
    // By the names that platforms give.
    for (name, value) in bucket.variables("site") {
        let name = name.replace("HOUSEBOAT_REPLICATION__", "LITESTREAM_");
        options.push(format!("--env={name}={value}"));
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    for names in [&["Bakery"][..], &["Bakery", "Library"]] {
        let container = Container::run_on_host(free_port(), &options, shipped());
        container.healthy().await;
        let (new, before) = names.split_last().unwrap();
        let page = page(&container).await;
        for name in before {
            assert!(page.contains(name), "{name}: {}", container.log());
        }
        add_monitor(&container, new).await;
        assert_stops(&container);
        let log = container.log();
        assert!(!log.contains("nothing is replicated"), "{log}");
    }
}

#[tokio::test]
async fn it_is_nobody_and_the_program_is_its_first_process() {
    if !slow("the image's user") {
        return;
    }
    let container = Container::run(&[], shipped());
    container.healthy().await;
    let command = ["sh", "-c", "id -u; id -g; cat /proc/1/comm"];
    let printed = container.execute(&command);
    assert_eq!(printed.out, "10001\n10001\nhouseboat\n", "{printed:?}");
    let volumes = container.inspect("{{len .Mounts}}");
    assert_eq!(volumes, "0", "a volume without a name");
    let printed = container.execute(&["litestream", "version"]);
    assert_eq!(printed.out, "0.5.17\n", "{printed:?}");
}

#[tokio::test]
async fn it_needs_no_rights_and_writes_nowhere_but_to_its_data() {
    if !slow("the image without rights") {
        return;
    }
    let volume = Volume::new();
    let data = volume.option();
    let options = [
        data.as_str(),
        "--read-only",
        "--tmpfs=/tmp",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
    ];
    let container = Container::run(&options, shipped());
    container.healthy().await;
    add_monitor(&container, "Bakery").await;
    assert!(page(&container).await.contains("Bakery"));
    // A cache that cannot be opened costs no request, and would go unnoticed.
    let files = container.execute(&["ls", "/data"]).out;
    assert!(files.contains("cache.sqlite3\n"), "{files}");
    assert_stops(&container);
    // Without a volume there is nowhere to write, and it says so.
    let bare = Container::run(&options[1..], shipped());
    assert_eq!(bare.ended().await, "1");
    let log = bare.log();
    assert!(
        log.contains("/data (the file system is read-only)"),
        "{log}"
    );
}

#[tokio::test]
async fn it_listens_where_the_platform_says() {
    if !slow("the image's port") {
        return;
    }
    let container = Container::run(&["--env=PORT=9000"], shipped());
    // Its health check asks there as well.
    container.healthy().await;
    let log = container.log();
    assert!(log.contains("listening on http://0.0.0.0:9000"), "{log}");
}

#[tokio::test]
async fn a_folder_that_belongs_to_another_user_is_named() {
    if !slow("the image on a folder of root's") {
        return;
    }
    let volume = Volume::new();
    // An empty volume takes the owner of the image's folder; one that root has used does not.
    let data = volume.option();
    docker(&[
        "run",
        "--rm",
        "--user=0",
        &data,
        "--entrypoint=sh",
        shipped(),
        "-c",
        "touch /data/root && chown 0:0 /data && chmod 755 /data",
    ]);
    let container = Container::run(&[&data], shipped());
    assert_eq!(container.ended().await, "1");
    let log = container.log();
    let sentence = "cannot open /data/site.sqlite3: this user cannot make files in the directory /data (permission denied)";
    assert!(log.contains(sentence), "{log}");
}

#[tokio::test]
async fn it_is_unhealthy_when_the_site_does_not_answer() {
    if !slow("the image's health check") {
        return;
    }
    let container = Container::run(&[], shipped());
    container.healthy().await;
    let printed = container.execute(&["houseboat", "health"]);
    assert_eq!(
        (printed.code, printed.out.as_str()),
        (Some(0), "up\n"),
        "{printed:?}"
    );
    let elsewhere = ["sh", "-c", "PORT=9 houseboat health"];
    let printed = container.execute(&elsewhere);
    assert_eq!(printed.code, Some(1), "{printed:?}");
}

#[tokio::test]
async fn the_shipped_dockerfile_builds_and_is_small() {
    if !slow("a build of the whole image, which takes minutes") {
        return;
    }
    let image = whole_image();
    let bytes = docker(&["image", "inspect", "--format", "{{.Size}}", &image]);
    let bytes: u64 = bytes.parse().unwrap();
    assert!(bytes < BYTES_MAX, "{bytes} bytes");
    let container = Container::run(&[], &image);
    container.healthy().await;
    assert!(page(&container).await.contains("</html>"));
    assert_stops(&container);
    let shell = try_docker(&["run", "--rm", &image, "no-such-command"]);
    assert_eq!(shell.code, Some(2), "{shell:?}");
}

#[test]
fn the_dockerfile_says_what_platforms_read() {
    let dockerfile = include_str!("../../Dockerfile");
    let words = |word: &str| dockerfile.matches(word).count();
    // Coolify reads its values from the line with the word, wherever that is.
    assert_eq!(words("HEALTHCHECK"), 1);
    let health = dockerfile
        .lines()
        .find(|line| line.starts_with("HEALTHCHECK "))
        .unwrap();
    let seconds = |name: &str| -> u64 {
        let (_, rest) = health
            .split_once(&format!("--{name}="))
            .unwrap_or_else(|| panic!("{name} is not given"));
        let value = rest.split(' ').next().unwrap();
        value.trim_end_matches('s').parse().unwrap()
    };
    let (interval, retries) = (seconds("interval"), seconds("retries"));
    // A proxy that goes by the health sees the end so late; it looks again 2 s after a change.
    let noticed_ms = (interval * retries + 2) * 1000;
    let config: Config<NoSettings> = Config::load_from(
        "no such folder".as_ref(),
        [("COOLIFY_RESOURCE_UUID".to_owned(), "x".to_owned())],
    )
    .unwrap();
    assert!(config.handover.linger_ms > noticed_ms);
    // A health check answers within its time, and a start has that much of it.
    assert!(seconds("timeout") * 1000 > 1500);
    assert!(seconds("start-period") >= 2 * interval);
    // Pulled where there is no registry; a volume that nobody named; a shell that hears no signal.
    assert_eq!(words("# syntax"), 0);
    assert_eq!(words("\nVOLUME"), 0);
    for line in ["\nENTRYPOINT [\"", "\nCMD [\"", " CMD [\"houseboat\""] {
        assert_eq!(words(line), 1, "{line}");
    }
}
