//! `narthex query instant|range`: ask a running server, print like promtool.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use http::{HeaderValue, header};
use serde_json::Value;

use crate::http_client::{self, Client, Request};
use crate::model::float::format_general;
use crate::model::labels::{Labels, METRIC_NAME};

/// Answers larger than this are refused.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(2);

/// What to ask.
#[derive(Debug, Subcommand)]
pub enum QueryCommand {
    /// Evaluate at one moment.
    Instant {
        /// Whom to ask, and what.
        #[command(flatten)]
        target: Target,
        /// Moment (RFC 3339 or Unix seconds); now when it is left out.
        #[arg(long)]
        time: Option<String>,
    },
    /// Evaluate over a span of time.
    Range {
        /// Whom to ask, and what.
        #[command(flatten)]
        target: Target,
        /// Begin (RFC 3339 or Unix seconds); five minutes before the end when it is left out.
        #[arg(long)]
        start: Option<String>,
        /// End (RFC 3339 or Unix seconds); now when it is left out.
        #[arg(long)]
        end: Option<String>,
        /// Step (seconds or a duration like 30s).
        #[arg(long, default_value = "15s")]
        step: String,
    },
    /// List series.
    Series {
        /// Whom to ask, and about which time.
        #[command(flatten)]
        span: Span,
    },
    /// List the values of a label.
    Labels {
        /// Whom to ask, and about which time.
        #[command(flatten)]
        span: Span,
        /// The label.
        name: String,
    },
}

/// Whom to ask, and about which time.
#[derive(Args, Debug)]
pub struct Span {
    /// How to print the answer.
    #[arg(short = 'o', long = "format", default_value = "promql")]
    format: Format,
    /// Begin (RFC 3339 or Unix seconds).
    #[arg(long)]
    start: Option<String>,
    /// End (RFC 3339 or Unix seconds).
    #[arg(long)]
    end: Option<String>,
    /// Series selector; may be repeated.
    #[arg(long = "match", value_name = "SELECTOR")]
    matches: Vec<String>,
    /// The server, like http://127.0.0.1:9090.
    server: String,
}

/// Whom to ask, and what.
#[derive(Args, Debug)]
pub struct Target {
    /// How to print the answer.
    #[arg(short = 'o', long = "format", default_value = "promql")]
    format: Format,
    /// Print how the query would be evaluated, instead of its result.
    #[arg(long)]
    explain: bool,
    /// The server, like http://127.0.0.1:9090.
    server: String,
    /// PromQL expression.
    expr: String,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Format {
    /// Series and samples in PromQL's notation.
    Promql,
    /// The `result` of the API's answer.
    Json,
}

/// Asks and prints.
pub fn run(command: QueryCommand) -> anyhow::Result<()> {
    let (path, target, mut parameters) = match command {
        QueryCommand::Instant { target, time } => ("query", target, vec![("time", time)]),
        QueryCommand::Range { target, start, end, step } => {
            let now_ms = crate::base::clock::Clock::now_ms(&crate::base::clock::OsClock::new());
            let end = end.unwrap_or_else(|| (now_ms as f64 / 1000.0).to_string());
            let end_ms = crate::api::params::parse_time_ms(&end).map_err(anyhow::Error::msg)?;
            let default_start = (end_ms - 300_000) as f64 / 1000.0;
            let start = start.unwrap_or_else(|| default_start.to_string());
            let parameters = vec![("start", Some(start)), ("end", Some(end)), ("step", Some(step))];
            ("query_range", target, parameters)
        }
        QueryCommand::Series { span } => {
            let data = span.ask("series")?;
            print!("{}", span.print(&data, series_text));
            return Ok(());
        }
        QueryCommand::Labels { span, name } => {
            let data = span.ask(&format!("label/{name}/values"))?;
            print!("{}", span.print(&data, |value| value.as_str().unwrap_or_default().to_owned()));
            return Ok(());
        }
    };
    parameters.push(("query", Some(target.expr.clone())));
    parameters.push(("explain", target.explain.then(|| "1".to_owned())));
    let data = &checked(send(&target.server, path, &parameters)?)?;
    if target.explain {
        let lines = data["plan"].as_array().into_iter().flatten();
        lines.for_each(|line| println!("{}", line.as_str().unwrap_or_default()));
    } else if target.format == Format::Json {
        println!("{}", data["result"]);
    } else {
        print!("{}", print_result(data));
    }
    Ok(())
}

/// The data of an answer; warnings are told.
fn checked(mut answer: Value) -> anyhow::Result<Value> {
    if answer["status"] != "success" {
        bail!(
            "query error: {}",
            answer["error"].as_str().unwrap_or("the answer is no Prometheus API answer")
        );
    }
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        eprintln!("warning: {}", warning.as_str().unwrap_or_default());
    }
    Ok(answer["data"].take())
}

impl Span {
    /// Asks with a query string: values of labels are not served to forms.
    fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let mut url = endpoint(&self.server, path)?;
        {
            let mut pairs = url.query_pairs_mut();
            for (name, value) in [("start", &self.start), ("end", &self.end)] {
                if let Some(value) = value {
                    pairs.append_pair(name, value);
                }
            }
            for selector in &self.matches {
                pairs.append_pair("match[]", selector);
            }
        }
        checked(receive(Request::get(url, ANSWER_TIMEOUT, ANSWER_BYTES_MAX))?)
    }

    /// Entries as lines, or the data as it came.
    fn print(&self, data: &Value, line: impl Fn(&Value) -> String) -> String {
        if self.format == Format::Json {
            return format!("{data}\n");
        }
        let entries = data.as_array().into_iter().flatten();
        entries.map(|entry| line(entry) + "\n").collect()
    }
}

fn endpoint(server: &str, path: &str) -> anyhow::Result<url::Url> {
    let mut url = url::Url::parse(server).context("parse the server's URL")?;
    url.set_path(&format!("{}/api/v1/{path}", url.path().trim_end_matches('/')));
    Ok(url)
}

fn receive(request: Request) -> anyhow::Result<Value> {
    let body = super::check::block_on(async move {
        let client = Client::new(&http_client::Options::plain(), super::USER_AGENT)
            .context("set up HTTP")?;
        let response = client.send(request).await.context("ask the server")?;
        anyhow::Ok(response.body)
    })?;
    serde_json::from_slice(&body).context("read the answer as JSON")
}

fn send(server: &str, path: &str, parameters: &[(&str, Option<String>)]) -> anyhow::Result<Value> {
    let url = endpoint(server, path)?;
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    let body = form.finish().into_bytes().into();
    let mut request = Request::post(url, body, ANSWER_TIMEOUT, ANSWER_BYTES_MAX);
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers.insert(header::CONTENT_TYPE, kind);
    receive(request)
}

fn series_text(metric: &Value) -> String {
    let pairs = metric.as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = Labels::from_pairs(pairs.map(|(name, value)| (name.clone(), text(value))));
    let name = labels.get(METRIC_NAME).unwrap_or("").to_owned();
    let rest = labels.without_name();
    if rest.is_empty() && !name.is_empty() { name } else { format!("{name}{rest}") }
}

fn point_text(point: &Value) -> String {
    format!("{} @[{}]", point[1].as_str().unwrap_or("?"), point[0])
}

/// A moment and a histogram in the notation of promtool.
fn histogram_text(point: &Value) -> String {
    let (histogram, time) = (&point[1], &point[0]);
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let number = |value: &Value| text(value).parse::<f64>().unwrap_or(f64::NAN);
    let buckets: Vec<String> = histogram["buckets"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|bucket| {
            // Which ends belong to it.
            let (open, close) = match bucket[0].as_u64() {
                Some(0) => ('(', ']'),
                Some(1) => ('[', ')'),
                Some(2) => ('(', ')'),
                _ => ('[', ']'),
            };
            let [lower, upper] = [1, 2].map(|at| format_general(number(&bucket[at])));
            format!("{open}{lower},{upper}{close}:{}", text(&bucket[3]))
        })
        .collect();
    let [count, sum] = ["count", "sum"].map(|name| six_decimals(number(&histogram[name])));
    format!("Count: {count}, Sum: {sum}, Buckets: [{}] @[{time}]", buckets.join(" "))
}

/// As Go's `%f`.
fn six_decimals(value: f64) -> String {
    if value.is_infinite() { format_general(value) } else { format!("{value:.6}") }
}

/// A result in promtool's notation, each line ended.
fn print_result(data: &Value) -> String {
    let result = &data["result"];
    let mut out = String::new();
    match data["resultType"].as_str() {
        Some("vector") => {
            for sample in result.as_array().into_iter().flatten() {
                let point = match &sample["histogram"] {
                    Value::Null => point_text(&sample["value"]),
                    histogram => histogram_text(histogram),
                };
                out.push_str(&format!("{} => {point}\n", series_text(&sample["metric"])));
            }
        }
        Some("matrix") => {
            for series in result.as_array().into_iter().flatten() {
                out.push_str(&format!("{} =>\n", series_text(&series["metric"])));
                for point in series["values"].as_array().into_iter().flatten() {
                    out.push_str(&format!("{}\n", point_text(point)));
                }
                for point in series["histograms"].as_array().into_iter().flatten() {
                    out.push_str(&format!("{}\n", histogram_text(point)));
                }
            }
        }
        Some("scalar") => {
            out.push_str(&format!("scalar: {}\n", point_text(result)));
        }
        _ => out.push_str(&format!("{}\n", result[1].as_str().unwrap_or_default())),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn results_print_like_promtool() {
        let vector = json!({ "resultType": "vector", "result": [
            { "metric": { "__name__": "up", "job": "a" }, "value": [1.5, "1"] },
            { "metric": { "__name__": "x" }, "value": [2, "NaN"] },
        ]});
        assert_eq!(print_result(&vector), "up{job=\"a\"} => 1 @[1.5]\nx => NaN @[2]\n");
        let matrix = json!({ "resultType": "matrix", "result": [
            { "metric": {}, "values": [[1, "1"], [2, "2"]] },
        ]});
        assert_eq!(print_result(&matrix), "{} =>\n1 @[1]\n2 @[2]\n");
        let histogram = json!({ "count": "6", "sum": "-2.5", "buckets": [
            [1, "-2", "-1", "1"], [3, "-0.001", "0.001", "2"], [0, "0.5", "1e+30", "3"],
        ]});
        let text = "Count: 6.000000, Sum: -2.500000, \
                    Buckets: [[-2,-1):1 [-0.001,0.001]:2 (0.5,1e+30]:3]";
        let vector = json!({ "resultType": "vector", "result": [
            { "metric": { "__name__": "h" }, "histogram": [2.5, histogram] },
        ]});
        assert_eq!(print_result(&vector), format!("h => {text} @[2.5]\n"));
        let matrix = json!({ "resultType": "matrix", "result": [
            { "metric": {}, "values": [[1, "1"]], "histograms": [[2, histogram]] },
        ]});
        assert_eq!(print_result(&matrix), format!("{{}} =>\n1 @[1]\n{text} @[2]\n"));
        let scalar = json!({ "resultType": "scalar", "result": [1, "3"] });
        assert_eq!(print_result(&scalar), "scalar: 3 @[1]\n");
    }
}
