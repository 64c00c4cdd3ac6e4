//! `narthex check`: files before they are used, and whether a server is healthy.

mod discovery;
mod metrics;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::base::disk::{Disk, OsDisk};
use crate::config::rules::parse_rules;
use crate::config::{Config, ConfigError, alertmanager};
use crate::http_client::{self, Client, Request};
use crate::promql::parser::ParserOptions;

/// Longest wait for a server's word on its health.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// What to check.
#[derive(Debug, Subcommand)]
pub enum Check {
    /// Configuration files in Prometheus' format, with the rule files they name.
    Config {
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Rule files.
    Rules {
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Configuration files in Alertmanager's format.
    Alertmanager {
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Metrics of an exposition, read from standard input: names, help texts, series.
    Metrics {
        /// Also print which metrics have the most series.
        #[arg(long)]
        extended: bool,
    },
    /// What a job of a configuration file discovers, and what relabelling makes of it.
    ServiceDiscovery {
        /// Configuration file.
        file: PathBuf,
        /// Name of the job.
        job: String,
        /// How long to wait for targets.
        #[arg(long, default_value = "30s", value_parser = crate::cli::flags::parse_duration)]
        timeout: Duration,
    },
    /// Whether a server is alive (also for container health checks).
    Healthy {
        /// The server.
        #[arg(long, default_value = "http://127.0.0.1:9090")]
        url: String,
    },
    /// Whether a server answers queries.
    Ready {
        /// The server.
        #[arg(long, default_value = "http://127.0.0.1:9090")]
        url: String,
    },
}

/// Exit status when names could be better, as in promtool.
const EXIT_LINT: u8 = 3;
/// Bytes of an exposition.
const EXPOSITION_BYTES_MAX: u64 = 1 << 30;

/// Checks and prints; the exit status is 1 when anything is wrong.
pub fn run(check: Check) -> ExitCode {
    let is_fine = match check {
        Check::Metrics { extended } => return check_metrics(extended),
        Check::Config { files } => all(&files, check_config),
        Check::Rules { files } => all(&files, check_rules),
        Check::Alertmanager { files } => all(&files, check_alertmanager),
        Check::ServiceDiscovery { file, job, timeout } => {
            match discovery::found(&file, &job, timeout) {
                Ok(found) => {
                    println!("{found:#}");
                    true
                }
                Err(err) => {
                    eprintln!("{err:#}");
                    false
                }
            }
        }
        Check::Healthy { url } => told(ask(&url, "/-/healthy")),
        Check::Ready { url } => told(ask(&url, "/-/ready")),
    };
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all(
    files: &[PathBuf],
    check: impl Fn(&dyn Disk, &Path) -> Result<String, Vec<ConfigError>>,
) -> bool {
    let mut is_fine = true;
    for file in files {
        println!("Checking {}", file.display());
        match check(&OsDisk, file) {
            Ok(found) => println!("  SUCCESS: {found}\n"),
            Err(errors) => {
                is_fine = false;
                eprintln!("  FAILED:");
                for err in errors {
                    eprintln!("  {err}");
                }
                eprintln!();
            }
        }
    }
    is_fine
}

fn check_config(disk: &dyn Disk, file: &Path) -> Result<String, Vec<ConfigError>> {
    let environment = |name: &str| std::env::var(name).ok();
    let config = Config::load(file, disk, &environment).map_err(|err| vec![err])?;
    let missing = config.missing_files(disk);
    if !missing.is_empty() {
        return Err(missing);
    }
    for warning in config.warnings() {
        println!("  WARNING: {warning}");
    }
    let groups = config.rule_groups(disk, ParserOptions::ALL)?;
    let rules: usize = groups.iter().map(|group| group.rules.len()).sum();
    let files = config.rule_files(disk).len();
    let jobs = config.scrape_jobs().len();
    Ok(format!("{jobs} scrape jobs, {files} rule files, {rules} rules found"))
}

fn check_rules(disk: &dyn Disk, file: &Path) -> Result<String, Vec<ConfigError>> {
    // What a main file that says nothing gives to rule files.
    let defaults = Config::parse(file, "", disk, &|_| None).map_err(|err| vec![err])?;
    let text = crate::config::read(disk, file).map_err(|err| vec![err])?;
    let groups = parse_rules(file, &text, &defaults.rule_defaults(ParserOptions::ALL))?;
    let rules: usize = groups.iter().map(|group| group.rules.len()).sum();
    Ok(format!("{rules} rules found"))
}

fn check_alertmanager(disk: &dyn Disk, file: &Path) -> Result<String, Vec<ConfigError>> {
    let flags =
        alertmanager::Flags { external_url: "http://localhost".to_owned(), retention_ms: 0 };
    let options = alertmanager::load(disk, file, &flags).map_err(|err| vec![err])?;
    let (receivers, inhibitions) = (options.receivers.len(), options.inhibit_rules.len());
    Ok(format!("{receivers} receivers, {inhibitions} inhibit rules found"))
}

fn check_metrics(is_extended: bool) -> ExitCode {
    let mut body = Vec::new();
    let read = std::io::stdin().take(EXPOSITION_BYTES_MAX).read_to_end(&mut body);
    let read = read.map_err(|err| format!("read standard input: {err}"));
    let exposition = match read.and_then(|_| metrics::Exposition::read(&body)) {
        Ok(exposition) => exposition,
        Err(err) => {
            eprintln!("{err}");
            return ExitCode::FAILURE;
        }
    };
    let problems = exposition.problems();
    for (metric, text) in &problems {
        eprintln!("{metric} {text}");
    }
    if is_extended {
        let counts = exposition.cardinality();
        let total: usize = counts.iter().map(|(_, count)| count).sum();
        let width = counts.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(6);
        println!("{:width$}    Cardinality    Percentage", "Metric");
        for (name, count) in &counts {
            let percent = 100.0 * *count as f64 / total.max(1) as f64;
            println!("{name:width$}    {count:<11}    {percent:.2}%");
        }
        println!("{:width$}    {total:<11}    100%", "Total");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_LINT) }
}

fn told(result: anyhow::Result<String>) -> bool {
    match &result {
        Ok(text) => println!("  SUCCESS: {}", text.trim()),
        Err(err) => eprintln!("  FAILED: {err:#}"),
    }
    result.is_ok()
}

fn ask(server: &str, path: &str) -> anyhow::Result<String> {
    let mut url = url::Url::parse(server).context("parse the server's URL")?;
    url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
    block_on(async move {
        let client = Client::new(&http_client::Options::plain(), super::USER_AGENT)
            .context("set up HTTP")?;
        let request = Request::get(url, HEALTH_TIMEOUT, 1 << 20);
        let response = client.send(request).await.context("ask the server")?;
        let text = String::from_utf8_lossy(&response.body).into_owned();
        if !response.status.is_success() {
            bail!("{}: {}", response.status_text(), text.trim());
        }
        Ok(text)
    })
}

/// Runs one future to its end, for commands that ask a server.
pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().context("start the async runtime")?.block_on(future)
}
