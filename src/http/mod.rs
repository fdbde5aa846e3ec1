//! The server: layers, pages for errors, static files, liveness.
//!
//! [`router`] puts the layers around a site's routes, [`serve`] answers until it is told to stop. A container that
//! may not be the only one of its site puts a [`Front`] in between.
//! The paths `/up`, `/ready` and `/assets/` are the framework's; all others are the site's.

mod address;
mod arrival;
mod assets;
mod body_limit;
mod client;
mod coding;
mod compress;
mod connections;
mod error;
mod etag;
mod flash;
mod form;
mod forwarded;
mod gate;
mod handover;
mod health;
mod hosts;
mod layers;
mod nonce;
mod once;
mod pace;
mod page_cache;
mod personal;
mod proxies;
mod rate_limit;
mod settings;
mod upload;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::database::Migrations;

pub(crate) use self::address::network;
pub use self::assets::Assets;
pub use self::client::Client;
use self::connections::Limits;
pub use self::error::Cause;
pub use self::error::Error;
pub use self::error::ErrorPage;
pub use self::error::ErrorPages;
pub use self::error::FieldError;
pub use self::error::Result;
pub use self::flash::Flash;
pub use self::flash::Message;
pub use self::form::Errors;
pub use self::form::Form;
pub use self::form::Input;
pub use self::form::Json;
pub use self::form::Password;
pub use self::form::Path;
pub use self::form::Query;
pub use self::form::Wrong;
pub use self::handover::Control;
pub use self::handover::Front;
pub use self::handover::HandoverSettings;
pub use self::handover::Peer;
pub use self::handover::PeerError;
pub use self::handover::Progress;
pub use self::handover::Role;
pub use self::handover::Status;
pub use self::handover::addresses;
pub use self::layers::router;
pub use self::nonce::Nonce;
pub use self::once::Once;
pub use self::once::OnceKey;
pub use self::page_cache::Cached;
pub use self::page_cache::PageCache;
pub use self::page_cache::Pages;
pub(crate) use self::page_cache::SESSION_COOKIES;
pub use self::rate_limit::Limited;
pub use self::rate_limit::RateLimit;
pub use self::settings::Settings;
pub(crate) use self::settings::is_url;
pub use self::upload::Download;
pub use self::upload::Upload;
pub use self::upload::UploadedFile;
pub use self::upload::Uploading;
pub use self::upload::Uploads;

/// The tables of this module.
pub const MIGRATIONS: Migrations = Migrations::new(
    "http",
    &[
        (
            "V1__assets",
            include_str!("../../migrations/http/V1__assets.sql"),
        ),
        (
            "V2__once",
            include_str!("../../migrations/http/V2__once.sql"),
        ),
    ],
);

/// Whether it is the name of a host, and no more.
pub(crate) fn is_host(text: &str) -> bool {
    !text.contains(['*', ':']) && hosts::is_pattern(text)
}

/// Answers requests until `stop`, then finishes those in flight.
///
/// HTTP/1.1, and HTTP/2 for who begins with it, as a proxy may. What a connection may cost stands in `settings`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &Settings,
    stop: CancellationToken,
) {
    let limits = Limits::visitors(settings);
    settings.warn();
    connections::serve(listener, router.with_state(()), limits, stop).await;
}
