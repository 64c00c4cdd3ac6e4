//! The file that gets a line for each failed scrape (`scrape_failure_log_file`).

use std::path::Path;

use tokio::io::AsyncWriteExt as _;

/// Appends one JSON line; what cannot be written is only warned about.
pub(super) async fn write(path: &Path, now_ms: i64, job_name: &str, target: &str, error: &str) {
    let time = jiff::Timestamp::from_millisecond(now_ms).unwrap_or_default().to_string();
    let mut line = serde_json::json!({
        "time": time,
        "level": "ERROR",
        "msg": error,
        "job_name": job_name,
        "target": target,
    })
    .to_string();
    line.push('\n');
    let mut options = tokio::fs::OpenOptions::new();
    let written = async {
        let mut file = options.create(true).append(true).open(path).await?;
        file.write_all(line.as_bytes()).await?;
        file.flush().await
    };
    if let Err(err) = written.await {
        tracing::warn!(error = %err, path = %path.display(), "Write scrape failure log failed.");
    }
}
