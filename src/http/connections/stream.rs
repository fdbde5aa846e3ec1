//! The bytes of a connection, as they go by.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use crate::http::connections::framing::Framing;
use crate::http::connections::framing::Sending;
use crate::http::connections::pulse::Pulse;
use crate::http::connections::table::Place;
use crate::http::connections::taking::Taking;

/// What is given on in the place of a refused byte: no request has it anywhere, so hyper answers 400 and closes.
const NEVER: u8 = 0;

/// And after it, so that hyper sees a whole head, and looks at it.
const END: &[u8] = b"\r\n\r\n";

/// How much of what nobody wants any more is read before the connection is cut.
const UNWANTED_BYTES_MAX: usize = 1 << 20;

/// A visitor's connection: what goes by is told to its [`Pulse`], and what may be read in two ways does not go by.
#[derive(Debug)]
pub(super) struct Stream {
    socket: TcpStream,
    framing: Framing,
    refusal: Refusal,
    unwanted: usize,
    taking: Taking,
    /// Dropped with the stream, which may outlive its HTTP.
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    None,
    OfHead,
    /// hyper tells whoever reads the body.
    OfBody,
    Told,
}

impl Stream {
    pub(super) fn new(
        socket: TcpStream,
        place: Place,
        needs_host: bool,
        bytes_per_s_min: u64,
    ) -> Self {
        Self {
            socket,
            framing: Framing::new(needs_host),
            refusal: Refusal::None,
            unwanted: 0,
            taking: Taking::new(bytes_per_s_min),
            place,
        }
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        self.place.pulse()
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        let bytes = match written {
            Poll::Ready(Ok(bytes)) => Some(*bytes),
            Poll::Ready(Err(_)) => Some(0),
            Poll::Pending => None,
        };
        self.taking.wrote(bytes, self.place.pulse());
    }

    fn follow(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let before_that = self.framing.sending();
        if let Err(at) = self.framing.follow(&buffer.filled()[before..]) {
            tracing::debug!("a request was refused for its shape");
            buffer.set_filled(before + at);
            self.refusal = if self.framing.sending() == Sending::Body {
                Refusal::OfBody
            } else {
                buffer.put_slice(&[NEVER]);
                Refusal::OfHead
            };
        }
        let sending = self.framing.sending();
        // A whole request is none that is begun, even where it came at once.
        if sending != before_that || sending == Sending::Nothing {
            self.pulse().sends(sending);
        }
    }

    /// Reads what the client still sends, for who cuts it off loses the answer on its way to it.
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 8 << 10];
        while self.unwanted < UNWANTED_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut self.socket).poll_read(context, &mut buffer);
            if ready!(read).is_err() || buffer.filled().is_empty() {
                break;
            }
            self.unwanted += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.refusal {
            Refusal::None => {}
            Refusal::OfBody => {
                self.refusal = Refusal::Told;
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            Refusal::OfHead => {
                let end = &END[..END.len().min(buffer.remaining())];
                buffer.put_slice(end);
                self.refusal = Refusal::Told;
                return Poll::Ready(Ok(()));
            }
            Refusal::Told => return Poll::Ready(Ok(())),
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        self.follow(buffer, before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    /// Says that no more is written, and listens to the client until it has heard that.
    ///
    /// Not where the client waits for nothing, and the server has somewhere to go.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_shutdown(context))?;
        let sending = self.framing.sending();
        let is_waiting = sending == Sending::Nothing && self.refusal == Refusal::None;
        if sending == Sending::Else || is_waiting && self.pulse().is_told() {
            return Poll::Ready(Ok(()));
        }
        // It may take as long as a head.
        self.pulse().sends(Sending::Body);
        self.poll_rest(context)
    }
}
