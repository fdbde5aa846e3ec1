//! A site with a `WebSocket`, for the tests that put proxies in front of it.

use houseboat::axum::{Router, routing::get};
use houseboat::{App, Context};

#[path = "../tests/it/support/websocket.rs"]
mod websocket;

fn main() -> std::process::ExitCode {
    let routes: Router<Context> = Router::new().route("/socket", get(websocket::echo));
    houseboat::run(App::new("socket").routes(routes))
}
