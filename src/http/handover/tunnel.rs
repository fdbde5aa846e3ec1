//! Connections that have become something else than HTTP, such as `WebSocket`.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

/// Joins both sides once both have left HTTP, until one of them closes or `stop`.
///
/// There are never more than there are connections, each with two buffers of 8 KiB.
pub(super) fn join(visitor: OnUpgrade, site: OnUpgrade, stop: CancellationToken) {
    let joined = async {
        let (visitor, site) = tokio::try_join!(visitor, site)?;
        let (mut visitor, mut site) = (TokioIo::new(visitor), TokioIo::new(site));
        let copied = tokio::io::copy_bidirectional(&mut visitor, &mut site).await;
        // Either side may just hang up; that is how most of these end.
        drop(copied);
        Ok::<(), hyper::Error>(())
    };
    tokio::spawn(async move {
        tokio::select! {
            result = joined => {
                if let Err(error) = result {
                    tracing::debug!(%error, "an upgraded connection could not be passed on");
                }
            }
            () = stop.cancelled() => {}
        }
    });
}
