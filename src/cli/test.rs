//! `narthex test`: rules and queries against series that a file lists.

pub mod memory;
pub mod notation;
mod pinned;
pub mod script;
pub mod unit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use regex::Regex;

use crate::base::disk::OsDisk;
use crate::config::read;

/// What to test.
#[derive(Debug, Subcommand)]
pub enum TestCommand {
    /// Run unit tests of rules, in promtool's format.
    Rules {
        /// Run only tests whose name matches this regular expression; may be repeated.
        #[arg(long = "run", value_name = "REGEX")]
        run: Vec<String>,
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Run scripts of promqltest.
    Promql {
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Tests and prints; the exit status is 1 when anything fails.
pub fn run(command: TestCommand) -> ExitCode {
    let is_fine = match command {
        TestCommand::Rules { run, files } => match wanted(&run) {
            Ok(wanted) => all(&files, |path, text| unit::run(&OsDisk, path, text, wanted.as_ref())),
            Err(err) => {
                eprintln!("narthex: error: --run: {err}");
                false
            }
        },
        TestCommand::Promql { files } => all(&files, |_, text| {
            let tally = script::run(text).map_err(|err| vec![err])?;
            if tally.failures.is_empty() {
                Ok(format!("{} evaluations passed", tally.passed))
            } else {
                Err(tally.failures)
            }
        }),
    };
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn wanted(patterns: &[String]) -> Result<Option<Regex>, regex::Error> {
    if patterns.is_empty() {
        return Ok(None);
    }
    Regex::new(&patterns.join("|")).map(Some)
}

fn all(files: &[PathBuf], test: impl Fn(&Path, &str) -> Result<String, Vec<String>>) -> bool {
    let mut is_fine = true;
    for file in files {
        println!("Unit Testing:  {}", file.display());
        let text = read(&OsDisk, file).map_err(|err| vec![err.to_string()]);
        match text.and_then(|text| test(file, &text)) {
            Ok(found) => println!("  SUCCESS: {found}\n"),
            Err(errors) => {
                is_fine = false;
                eprintln!("  FAILED:");
                for err in errors {
                    eprintln!("{err}\n");
                }
            }
        }
    }
    is_fine
}
