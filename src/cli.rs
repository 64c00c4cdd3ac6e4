//! The command line: flags of the server, and the sub-commands beside it.

pub mod check;
pub mod flags;
pub mod promql;
pub mod query;
pub mod test;
pub mod tsdb;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use flags::ServeFlags;

/// How commands that ask a server call themselves.
const USER_AGENT: &str = concat!("narthex/", env!("CARGO_PKG_VERSION"));

/// Exit status for wrong flags or configuration, as in Prometheus.
const EXIT_USAGE: u8 = 2;

/// Narthex: scrape, store, query and alert, in one binary. Without a sub-command it serves.
#[derive(Debug, Parser)]
#[command(name = "narthex", version = version_line(), args_conflicts_with_subcommands = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check files before they are used, or a running server's health.
    #[command(subcommand)]
    Check(check::Check),
    /// Ask a running server.
    #[command(subcommand)]
    Query(query::QueryCommand),
    /// Lay out and edit queries.
    #[command(subcommand)]
    Promql(promql::PromqlCommand),
    /// Test rules and queries against series that a file lists.
    #[command(subcommand)]
    Test(test::TestCommand),
    /// Look at a data directory.
    #[command(subcommand)]
    Tsdb(tsdb::TsdbCommand),
    /// Print the version.
    Version,
}

fn version_line() -> &'static str {
    concat!(
        env!("CARGO_PKG_VERSION"),
        " (revision ",
        env!("NARTHEX_REVISION"),
        ", compatible with Prometheus 3.14)"
    )
}

/// The command line, for those who document it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with these arguments (the first is its own name).
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = flags::without_negations(arguments.into_iter().collect());
    let command = Cli::command();
    let matches = match command.clone().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(err) => {
            // Help and version are "errors" that go to standard output with status 0.
            let _ = err.print();
            return if err.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(err) => {
            let _ = err.print();
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match cli.command {
        None => serve(cli.serve, flags::values(&command, &matches)),
        Some(Command::Check(check)) => check::run(check),
        Some(Command::Query(query)) => report(query::run(query)),
        Some(Command::Promql(command)) => report(promql::run(command)),
        Some(Command::Test(command)) => test::run(command),
        Some(Command::Tsdb(command)) => report(tsdb::run(command)),
        Some(Command::Version) => {
            println!("narthex, version {}", version_line());
            ExitCode::SUCCESS
        }
    }
}

fn serve(flags: ServeFlags, values: std::collections::BTreeMap<String, String>) -> ExitCode {
    let options = match flags.into_options(values) {
        Ok(options) => options,
        Err(err) => {
            eprintln!("narthex: error: {err:#}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match crate::server::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(crate::server::RunError::Configuration(err)) => {
            eprintln!("narthex: error: {err:#}");
            ExitCode::from(EXIT_USAGE)
        }
        Err(crate::server::RunError::Failed(err)) => {
            eprintln!("narthex: error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("narthex: error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
