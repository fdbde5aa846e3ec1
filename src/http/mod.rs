//! The server: layers, pages for errors, static files, liveness.
//!
//! [`router`] puts the layers around a site's routes, [`serve`] answers until it is told to stop. A container that
//! may not be the only one of its site puts a [`Front`] in between.
//! The paths `/up`, `/ready` and `/assets/` are the framework's; all others are the site's.

mod address;
mod arrival;
mod assets;
mod body_limit;
mod error;
mod flash;
mod form;
mod handover;
mod health;
mod layers;
mod nonce;
mod once;
mod page_cache;
mod personal;
mod rate_limit;
mod settings;
mod upload;

use std::future::IntoFuture;
use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::assets::Assets;
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
pub(crate) use self::once::MIGRATIONS;
pub use self::once::Once;
pub use self::once::OnceKey;
pub use self::page_cache::Cached;
pub use self::page_cache::PageCache;
pub use self::page_cache::Pages;
pub use self::rate_limit::Limited;
pub use self::rate_limit::RateLimit;
pub use self::settings::Settings;
pub(crate) use self::settings::is_url;
pub use self::upload::Download;
pub use self::upload::Upload;
pub use self::upload::UploadedFile;
pub use self::upload::Uploading;
pub use self::upload::Uploads;

/// Answers requests until `stop`, then finishes those in flight.
///
/// # Errors
///
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .into_future()
        .await
}
