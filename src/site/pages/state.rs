//! How a monitor is, in words, colour and shape.

/// How a monitor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It was not checked yet.
    Pending,
    /// The last check found all as expected.
    Up,
    /// The last checks failed, but too few to call it down.
    Failing {
        /// How many failed in a row.
        failures: u32,
        /// How many make an incident.
        failures_max: u32,
    },
    /// An incident goes on.
    Down,
    /// Nobody checks it.
    Paused,
}

impl State {
    /// Says it: "Up", "Failing, 1 of 2".
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Pending => "Waiting for a check".to_owned(),
            Self::Up => "Up".to_owned(),
            Self::Failing {
                failures,
                failures_max,
            } => {
                format!("Failing, {failures} of {failures_max}")
            }
            Self::Down => "Down".to_owned(),
            Self::Paused => "Paused".to_owned(),
        }
    }

    /// Names its class in the stylesheet.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Up => "up",
            Self::Failing { .. } => "failing",
            Self::Down => "down",
            Self::Paused => "paused",
        }
    }

    /// Draws its sign, in a box of 16 by 16: each differs in its outline or its inside.
    pub(crate) fn shape(&self) -> &'static str {
        match self {
            Self::Pending => {
                "M8 0a8 8 0 1 0 0 16A8 8 0 0 0 8 0Zm0 1.8a6.2 6.2 0 1 1 0 12.4A6.2 6.2 0 0 1 8 1.8Z\
                 M7.1 4v4.5l3.2 1.9.9-1.5-2.3-1.4V4Z"
            }
            Self::Up => {
                "M8 0a8 8 0 1 0 0 16A8 8 0 0 0 8 0Zm3.3 4.7 1.3 1.2-5.2 6L3.6 8.7l1.2-1.3 2.4 2Z"
            }
            Self::Failing { .. } => "M8 .6 0 15.2h16ZM7.1 5.6h1.8v5H7.1Zm0 6.2h1.8v1.8H7.1Z",
            Self::Down => {
                "M4.7 0h6.6L16 4.7v6.6L11.3 16H4.7L0 11.3V4.7Zm.8 4.2L4.2 5.5 6.7 8l-2.5 2.5 1.3 1.3\
                 L8 9.3l2.5 2.5 1.3-1.3L9.3 8l2.5-2.5-1.3-1.3L8 6.7Z"
            }
            Self::Paused => "M8 0a8 8 0 1 0 0 16A8 8 0 0 0 8 0ZM5 4.5h2v7H5Zm4 0h2v7H9Z",
        }
    }

    /// Tells whether its checks go on.
    pub(crate) fn is_paused(&self) -> bool {
        *self == Self::Paused
    }
}
