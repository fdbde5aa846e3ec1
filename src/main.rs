//! The reference site: a status monitor.

mod site;

use std::process::ExitCode;

use houseboat::App;
use houseboat::auth::Auth;
use houseboat::queue::Jobs;
use houseboat::queue::Schedule;

fn main() -> ExitCode {
    houseboat::run(
        App::new("houseboat")
            .version(env!("CARGO_PKG_VERSION"))
            .auth(Auth::default())
            .migrations(site::MIGRATIONS)
            .routes(site::routes())
            .assets(site::assets().clone())
            .on_damage(site::tell_of_damage)
            .jobs(
                Jobs::default()
                    .register::<site::CheckDueMonitors>()
                    .register::<site::CheckMonitor>()
                    .register::<site::SendAlert>()
                    .register::<site::PruneHistory>(),
            )
            .schedule(
                Schedule::default()
                    .cron::<site::CheckDueMonitors>("*/5 * * * * *")
                    .cron::<site::PruneHistory>("17 * * * *"),
            ),
    )
}
