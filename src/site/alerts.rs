//! What is sent when a monitor goes down or comes back.

use std::time::Duration;

use houseboat::database::BoxError;
use houseboat::database::Damage;
use houseboat::queue::Attempt;
use houseboat::queue::Job;
use houseboat::queue::Outcome;
use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;

use crate::site::Context;
use crate::site::incidents;
use crate::site::monitors::Monitor;
use crate::site::pages::Incident;
use crate::site::probe::Network;

/// How long the receiver may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// With the waits between them, for half an hour.
const DAMAGE_ATTEMPTS_MAX: u32 = 10;

/// Posts one alert to the webhook, as JSON.
///
/// All of it is in the job, so that it says what was true when it was enqueued.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct SendAlert {
    event: Event,
    monitor: About,
    incident: During,
}

/// What happened.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    Down,
    Up,
}

#[derive(Debug, Deserialize, Serialize)]
struct About {
    id: i64,
    name: String,
    address: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct During {
    id: i64,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
    cause: String,
    detail: String,
}

impl SendAlert {
    pub(crate) fn new(monitor: &Monitor, id: i64, incident: &Incident) -> Self {
        let event = if incident.end.is_some() {
            Event::Up
        } else {
            Event::Down
        };
        Self {
            event,
            monitor: About {
                id: monitor.id,
                name: monitor.input.name.clone(),
                address: monitor.input.target.address.clone(),
            },
            incident: During {
                id,
                started_at: incident.start,
                ended_at: incident.end,
                cause: incident.cause.as_str().to_owned(),
                detail: incident.detail.clone(),
            },
        }
    }

    /// The same for every attempt at one alert, so that a receiver can tell a repetition.
    fn key(&self) -> String {
        format!("{}-{:?}", self.incident.id, self.event).to_lowercase()
    }
}

/// An alert with the page to look at, where the site knows its own address.
#[derive(Serialize)]
struct Linked<T> {
    #[serde(flatten)]
    alert: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

/// The address of a page of this site.
fn link(context: &Context, path: &str) -> Option<String> {
    (!context.url.is_empty()).then(|| format!("{}{path}", context.url))
}

/// What is sent when the database is found damaged.
#[derive(Serialize)]
struct Damaged {
    event: &'static str,
    found_at: Timestamp,
    found_by: String,
    problem: String,
}

/// Tells the webhook that the database is damaged; not by a job, since it takes none then.
pub(crate) async fn tell_of_damage(context: Context, damage: Damage) {
    let url = context.settings.webhook_url.expose();
    if url.is_empty() {
        return;
    }
    let alert = Linked {
        alert: Damaged {
            event: "database_damaged",
            found_at: damage.found_at,
            found_by: damage.found_by,
            problem: damage.problem,
        },
        url: link(&context, "/ready"),
    };
    let key = format!("damaged-{}", damage.found_at);
    for attempt in 1..=DAMAGE_ATTEMPTS_MAX {
        let Err(error) = post(url, &key, &alert).await else {
            return;
        };
        tracing::error!(%error, attempt, "the webhook was not told that the database is damaged");
        tokio::time::sleep(SendAlert::backoff(attempt)).await;
    }
}

/// Posts to the webhook; the error does not name the address, which is a secret.
async fn post(url: &str, key: &str, alert: &impl Serialize) -> Result<(), BoxError> {
    // The operator chose it, and nobody sees what it answers: it may be on any network.
    let answer = Network::any()
        .direct()
        .post(url)
        .timeout(TIMEOUT)
        .header("idempotency-key", key)
        .json(alert)
        .send()
        .await
        .map_err(reqwest::Error::without_url)?;
    if !answer.status().is_success() {
        return Err(format!("the webhook answered {}", answer.status()).into());
    }
    Ok(())
}

impl Job for SendAlert {
    const NAME: &'static str = "send_alert";
    // With the waits below, for two hours and a quarter.
    const ATTEMPTS_MAX: u32 = 13;
    type Context = Context;

    async fn run(self, context: Attempt<Context>) -> Result<Outcome, BoxError> {
        let url = context.settings.webhook_url.expose();
        if url.is_empty() {
            return Ok(Outcome::Cancel("site.webhook_url is empty".to_owned()));
        }
        let incident = self.incident.id;
        let is_over = context
            .database
            .read(move |conn| incidents::is_over(conn, incident));
        if self.event == Event::Down && is_over.await? {
            // The alert that says so has all of this one, and may have been there before it.
            return Ok(Outcome::Cancel("the monitor is back meanwhile".to_owned()));
        }
        let page = format!("/monitors/{}", self.monitor.id);
        let alert = Linked {
            alert: &self,
            url: link(&context, &page),
        };
        post(url, &self.key(), &alert).await?;
        Ok(Outcome::Complete)
    }

    fn backoff(attempt: u32) -> Duration {
        Duration::from_secs(1 << attempt.min(12))
    }
}
