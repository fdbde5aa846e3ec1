//! The reference site as its visitors and its file know it.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::OpenFlags;

use crate::support::client::once_key;
use crate::support::client::post_form;
use crate::support::process::TestProcess;

const BUSY: Duration = Duration::from_secs(5);

/// A monitor as the form sends it.
#[derive(Clone, Debug)]
pub(crate) struct Monitor {
    fields: Vec<(&'static str, String)>,
}

impl Monitor {
    pub(crate) fn new(name: &str, address: &str) -> Self {
        let fields = [
            ("name", name),
            ("address", address),
            ("method", "GET"),
            ("expected_status", "200"),
            ("body_text", ""),
            ("interval_s", "30"),
            ("timeout_s", "2"),
            ("failures_max", "1"),
        ];
        let mut fields = fields
            .map(|(field, value)| (field, value.to_owned()))
            .to_vec();
        fields.push(("_once", once_key()));
        Self { fields }
    }

    pub(crate) fn set(&mut self, field: &str, value: &str) -> &mut Self {
        let found = self.fields.iter_mut().find(|(name, _)| *name == field);
        value.clone_into(&mut found.unwrap().1);
        self
    }

    pub(crate) fn pairs(&self) -> Vec<(&str, &str)> {
        let pairs = self.fields.iter();
        pairs
            .map(|(field, value)| (*field, value.as_str()))
            .collect()
    }

    /// Adds the monitor as the owner does, and returns the path of its page.
    pub(crate) async fn create(&self, site: &TestProcess) -> String {
        let owner = site.owner().await;
        // Another one each time.
        let mut monitor = self.clone();
        monitor.set("_once", &once_key());
        let answer = post_form(&owner, &site.url("/monitors"), &monitor.pairs())
            .await
            .unwrap();
        assert_eq!(answer.status(), 303, "{}", site.log());
        answer.headers()["location"].to_str().unwrap().to_owned()
    }
}

/// The site's file, read from outside.
pub(crate) fn database(folder: &Path) -> Connection {
    let path = folder.join("data/site.sqlite3");
    #[expect(
        clippy::disallowed_methods,
        reason = "it looks at the file as another program would"
    )]
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    conn.busy_timeout(BUSY).unwrap();
    conn
}

/// The one number that `sql` gives.
pub(crate) fn number(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}
