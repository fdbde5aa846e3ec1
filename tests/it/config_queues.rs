//! What is said of single queues: a table in the settings, from files and from variables.

use crate::config::Folder;
use crate::config::problems;

#[test]
fn a_queue_has_workers_and_a_weight_of_its_own() {
    let with = |text: &str| Folder::new(&[("development.toml", text)]).load(&[]);
    let config = with("[queue.queues.mail]\nworkers = 2\nweight = 3").unwrap();
    let mail = &config.queue.queues["mail"];
    assert_eq!((mail.workers, mail.weight), (Some(2), Some(3)));
    for (text, reason) in [
        ("weight = 101", "mail: weight must be from 1 to 100"),
        ("workers = 0", "mail: workers must be from 1 to 1024"),
        (
            "wait = 3",
            "has \"wait\", which is not known: right are workers, weight",
        ),
    ] {
        let problems = with(&format!("[queue.queues.mail]\n{text}")).unwrap_err();
        assert!(problems[0].contains(reason), "{problems:?}");
    }
}

#[test]
fn a_queue_may_be_set_by_variables_over_what_the_file_says() {
    let folder = Folder::new(&[(
        "development.toml",
        "[queue.queues.mail]\nworkers = 2\nweight = 3\n[queue.queues.bulk]\nweight = 2",
    )]);
    let variables = [
        ("HOUSEBOAT_QUEUE__QUEUES__MAIL__WORKERS", "4"),
        ("HOUSEBOAT_QUEUE__QUEUES__BIG_FILES__WORKERS", "1"),
    ];
    let config = folder.load(&variables).unwrap();
    let of = |name: &str| {
        let queue = &config.queue.queues[name];
        (queue.workers, queue.weight)
    };
    assert_eq!(of("mail"), (Some(4), Some(3)));
    assert_eq!(of("bulk"), (None, Some(2)));
    assert_eq!(of("big_files"), (Some(1), None));
    let printed = config.to_string();
    let queues = printed.lines().find(|line| line.starts_with("queues"));
    let queues = queues.unwrap();
    // As it may stand in a file, with all that has a part in it.
    let table = "queues = { big_files = { workers = 1 }, bulk = { weight = 2 }, mail = { weight = 3, workers = 4 } }  # ";
    let origins = queues.strip_prefix(table).unwrap();
    assert!(origins.contains("development.toml"), "{origins}");
    assert!(origins.contains(" and HOUSEBOAT_QUEUE__QUEUES__MAIL__WORKERS"));
}

#[test]
fn a_variable_of_a_queue_that_is_wrong_is_named() {
    let prefix = "HOUSEBOAT_QUEUE__QUEUES__";
    for (name, value, reason) in [
        ("MAIL__WORKERS", "0", "mail: workers must be from 1 to 1024"),
        ("MAIL__WORKERS", "two", "must be a whole number, 0 or more"),
        (
            "MAIL__WORKER",
            "2",
            "has \"worker\", which is not known: right are workers, weight",
        ),
        ("MAIL", "2", "must be a table"),
        ("__WORKERS", "2", "is not a setting"),
    ] {
        let name = format!("{prefix}{name}");
        let problems = problems(&[(&name, value)]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(&name), "{problems:?}");
        assert!(problems[0].ends_with(reason), "{problems:?}");
    }
}
