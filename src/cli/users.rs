//! The command `users`: who may sign in.

use std::fmt::Write as _;
use std::io::BufRead as _;
use std::io::IsTerminal as _;
use std::io::Read as _;

use serde_json::json;

use crate::app;
use crate::app::App;
use crate::auth::Accounts;
use crate::auth::Listed;
use crate::auth::Refusal;
use crate::auth::Role;
use crate::auth::Switched;
use crate::cli::open_existing;
use crate::cli::print;
use crate::config::Config;
use crate::error::Error;
use crate::error::Result;
use crate::settings::Section;

/// No more of a line is read than the longest password may take.
const LINE_BYTES_MAX: u64 = 2_048;

/// What the command is to do.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// Add a user, and print a link by which the password is set
    Create {
        /// The address to sign in with
        #[arg(long)]
        email: String,
        /// The name that others see
        #[arg(long, default_value = "")]
        name: String,
        /// As an owner, who can do everything
        #[arg(long)]
        owner: bool,
        /// Set the password now: it is asked for, or read from standard input where that is no terminal
        #[arg(long)]
        password: bool,
    },
    /// List the users, owners first
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print a link by which a user sets another password
    Reset {
        #[arg(value_name = "EMAIL")]
        email: String,
    },
    /// Let a user sign in no more, and end all sessions
    Disable {
        #[arg(value_name = "EMAIL")]
        email: String,
    },
    /// Let a user sign in again
    Enable {
        #[arg(value_name = "EMAIL")]
        email: String,
    },
    /// Count the sessions of a user, or end them
    Sessions {
        #[arg(value_name = "EMAIL")]
        email: String,
        /// End them all
        #[arg(long)]
        revoke: bool,
    },
    /// Turn the second factor of a user off, who has lost it
    TotpOff {
        #[arg(value_name = "EMAIL")]
        email: String,
    },
}

pub(super) async fn run<S: Section>(
    app: &App<S>,
    config: &Config<S>,
    arguments: Arguments,
) -> Result<()> {
    let database = open_existing(config)?;
    let done = match (
        app::pending(&database, app.sets()).await,
        app.accounts(&database, config),
    ) {
        (Ok(()), Some(accounts)) => act(&accounts, arguments.action).await,
        (Ok(()), None) => Err(Error::Usage(
            "this site has no users: it does not call `App::auth`".to_owned(),
        )),
        (Err(error), _) => Err(error),
    };
    database.close().await;
    print(&done?)
}

async fn act(accounts: &Accounts, action: Action) -> Result<String> {
    match action {
        Action::Create {
            email,
            name,
            owner,
            password,
        } => {
            let role = if owner { Role::Owner } else { Role::Member };
            create(accounts, (&email, &name, role), password).await
        }
        Action::List { json } => {
            let listed = accounts.listed().await?;
            Ok(if json {
                as_json(&listed)
            } else {
                as_text(&listed)
            })
        }
        Action::Reset { email } => {
            let id = find(accounts, &email).await?;
            let link = accounts.password_link(id).await?;
            let disabled = || Error::Unsound(format!("{email} is disabled: enable it first"));
            Ok(format!("{}\n", link.ok_or_else(disabled)?))
        }
        Action::Disable { email } => switch(accounts, &email, false).await,
        Action::Enable { email } => switch(accounts, &email, true).await,
        Action::Sessions { email, revoke } => {
            let id = find(accounts, &email).await?;
            if revoke {
                let count = accounts.revoke_all(id).await?;
                return Ok(format!("{email}: {count} ended\n"));
            }
            let count = accounts.session_count(id).await?;
            Ok(format!("{email}: {count}\n"))
        }
        Action::TotpOff { email } => {
            let id = find(accounts, &email).await?;
            Ok(if accounts.drop_totp(id).await? {
                format!("{email}: no code is asked for any more\n")
            } else {
                format!("{email}: no code was asked for\n")
            })
        }
    }
}

async fn create(
    accounts: &Accounts,
    (email, name, role): (&str, &str, Role),
    has_password: bool,
) -> Result<String> {
    if has_password {
        let password = ask()?;
        let added = accounts.add(email, name, role, &password).await;
        added.map_err(refused)?;
        return Ok(format!("{email}: added\n"));
    }
    let added = accounts.add_without_password(email, (name, role)).await;
    let id = added.map_err(refused)?;
    let link = accounts.password_link(id).await?;
    Ok(format!("{}\n", link.unwrap_or_default()))
}

/// Never from the command line itself: others see the arguments of a process.
fn ask() -> Result<String> {
    let failed = |error| Error::Io("cannot read the password".to_owned(), error);
    let input = std::io::stdin();
    if input.is_terminal() {
        return rpassword::prompt_password("Password: ").map_err(failed);
    }
    let mut line = String::new();
    let mut input = input.lock().take(LINE_BYTES_MAX);
    input.read_line(&mut line).map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Database(error) => Error::Database(error),
        Refusal::Password(reason) => Error::Usage(format!("the password: {reason}")),
        other => Error::Usage(other.to_string()),
    }
}

async fn find(accounts: &Accounts, email: &str) -> Result<i64> {
    let id = accounts.id_of(email).await?;
    id.ok_or_else(|| Error::Unsound(format!("nobody has the address {email}")))
}

async fn switch(accounts: &Accounts, email: &str, is_enabled: bool) -> Result<String> {
    let id = find(accounts, email).await?;
    let state = if is_enabled { "enabled" } else { "disabled" };
    match accounts.switch(id, is_enabled).await? {
        Switched::Done => Ok(format!("{email}: {state}\n")),
        Switched::Already => Ok(format!("{email}: was {state} already\n")),
        Switched::LastOwner => Err(Error::Unsound(format!(
            "{email} is the last owner: make another one first (`users create --owner`)"
        ))),
        Switched::Missing => Err(Error::Unsound(format!("nobody has the address {email}"))),
    }
}

fn as_json(listed: &[Listed]) -> String {
    let users = listed.iter().map(|one| {
        json!({
            "id": one.user.id,
            "email": one.user.email,
            "name": one.user.name,
            "role": one.user.role.as_str(),
            "state": one.state,
            "has_second_factor": one.user.has_second_factor,
            "created_at": one.created_at.to_string(),
        })
    });
    let users: Vec<_> = users.collect();
    format!("{:#}\n", json!(users))
}

fn as_text(listed: &[Listed]) -> String {
    let mut text = String::new();
    for one in listed {
        let second = if one.user.has_second_factor {
            ", second factor"
        } else {
            ""
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}: {}, {}{second}, since {}",
            one.user.email,
            one.user.role.as_str(),
            one.state,
            one.created_at
        );
    }
    text
}
