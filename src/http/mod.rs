//! The server: layers, pages for errors, static files, liveness.
//!
//! [`router`] puts the layers around a site's routes, [`serve`] answers until it is told to stop. A container that
//! may not be the only one of its site puts a [`Front`] in between.
//! The paths `/up`, `/ready` and `/assets/` are the framework's; all others are the site's.

mod address;
mod arrival;
mod assets;
mod error;
mod handover;
mod health;
mod layers;
mod page_cache;
mod rate_limit;
mod settings;

use std::future::IntoFuture;
use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use self::address::address;
pub(crate) use self::address::network;
pub use self::assets::Assets;
pub use self::error::Error;
pub use self::error::Result;
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
pub use self::page_cache::Cached;
pub use self::page_cache::PageCache;
pub use self::page_cache::Pages;
pub(crate) use self::page_cache::SESSION_COOKIES;
pub use self::rate_limit::Limited;
pub use self::rate_limit::RateLimit;
pub use self::settings::Settings;
pub(crate) use self::settings::is_url;

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
