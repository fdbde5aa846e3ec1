//! The status monitor: it checks addresses, keeps what it found, and shows it.
//!
//! It uses of Houseboat what any other site can use.

mod alerts;
mod chart;
mod form;
mod format;
mod history;
mod incidents;
mod jobs;
mod monitors;
mod pages;
mod probe;
mod routes;
mod settings;
mod views;

use std::sync::LazyLock;

use houseboat::database::Migrations;
use houseboat::http::Assets;

pub(crate) use self::alerts::SendAlert;
pub(crate) use self::alerts::tell_of_damage;
pub(crate) use self::jobs::CheckDueMonitors;
pub(crate) use self::jobs::CheckMonitor;
pub(crate) use self::jobs::PruneHistory;
pub(crate) use self::routes::routes;
pub(crate) use self::settings::Settings;

/// What the site's handlers and jobs are given.
pub(crate) type Context = houseboat::Context<Settings>;

/// The site's tables.
pub(crate) const MIGRATIONS: Migrations = Migrations::new(
    "site",
    &[(
        "V1__monitors",
        include_str!("../../migrations/site/V1__monitors.sql"),
    )],
);

/// The site's static files.
pub(crate) fn assets() -> &'static Assets {
    static ASSETS: LazyLock<Assets> =
        LazyLock::new(|| houseboat::assets!("assets": "site.css", "site.js", "icon.svg"));
    &ASSETS
}
