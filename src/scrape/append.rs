//! One body into one batch: parse, look up, stage; and the stale markers of what has vanished.

pub(super) mod classic;
mod created;
mod protobuf;

use std::io::Read as _;
use std::sync::Arc;

use classic::{Classic, Open, PartOf};
use created::{Created, MetricOf};

use super::cache::{Cache, Kind, LineId, Statement};
use super::options::{HistogramOptions, JobOptions, ScrapeProtocol};
use super::sample_labels::{self, LabelError};
use crate::encoding::wire::entry::{Entry, ParseError, Sample};
use crate::encoding::wire::openmetrics::OpenMetricsParser;
use crate::encoding::wire::series::{self, Pair, SeriesError};
use crate::encoding::wire::text::TextParser;
use crate::model::exemplar::Exemplar;
use crate::model::float;
use crate::model::histogram::Histogram;
use crate::model::labels::{Labels, METRIC_NAME, quote};
use crate::model::metadata::MetricType;
use crate::model::sample::stale_nan;
use crate::storage::append::{Append, SeriesKey};

/// Largest uncompressed body when the job sets no limit.
pub(super) const BODY_BYTES_MAX: usize = 1 << 30;

/// Why a scrape failed; the texts are Prometheus'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScrapeError {
    #[error("{0}")]
    Fetch(String),
    #[error("body size limit exceeded")]
    BodySize,
    #[error("sample limit exceeded")]
    SampleLimit,
    #[error("histogram bucket limit exceeded")]
    BucketLimit,
    #[error("labels of all series of the body take too many bytes")]
    TooManyLabels,
    #[error("{0}")]
    Histogram(String),
    #[error("{0}")]
    ContentType(String),
    #[error("gzip: invalid data")]
    Gzip,
    #[error("{0}")]
    Parse(#[from] ParseError),
    #[error("{0}")]
    Series(#[from] SeriesError),
    #[error("{0}")]
    Labels(#[from] LabelError),
    /// The pool forces all its targets to fail.
    #[error("{0}")]
    Forced(String),
}

/// What a body held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Samples in the body.
    pub scraped: usize,
    /// Samples after metric relabelling.
    pub post_relabel: usize,
    /// Series that the cache did not know.
    pub added: usize,
    /// Series that occurred again without a timestamp of their own.
    pub duplicates: usize,
}

/// Undoes gzip, up to the job's limit.
pub(super) fn decompress(body: &[u8], limit: u64) -> Result<Vec<u8>, ScrapeError> {
    let bytes_max = body_bytes_max(limit);
    let mut out = Vec::new();
    let reader = flate2::read::MultiGzDecoder::new(body);
    reader.take(bytes_max as u64 + 1).read_to_end(&mut out).map_err(|_| ScrapeError::Gzip)?;
    if out.len() > bytes_max { Err(ScrapeError::BodySize) } else { Ok(out) }
}

/// The longest body that is accepted: the limit itself is too long already, as in Prometheus.
pub(super) fn body_bytes_max(limit: u64) -> usize {
    match limit {
        0 => BODY_BYTES_MAX,
        _ => usize::try_from(limit - 1).unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX),
    }
}

/// A body by its format.
pub(super) enum Parser<'a> {
    Text(TextParser<'a>),
    OpenMetrics(OpenMetricsParser<'a>),
    Protobuf(&'a [u8]),
}

/// A parser of lines.
trait LineParser<'a>: Iterator<Item = Result<Entry<'a>, ParseError>> {
    fn known_sample(&mut self, series: &[u8]) -> Option<Sample<'a>>;
    fn known_line(&mut self, line: &[u8]) -> bool;
}

impl<'a> LineParser<'a> for TextParser<'a> {
    fn known_sample(&mut self, series: &[u8]) -> Option<Sample<'a>> {
        TextParser::known_sample(self, series)
    }

    fn known_line(&mut self, line: &[u8]) -> bool {
        TextParser::known_line(self, line)
    }
}

impl<'a> LineParser<'a> for OpenMetricsParser<'a> {
    fn known_sample(&mut self, series: &[u8]) -> Option<Sample<'a>> {
        OpenMetricsParser::known_sample(self, series)
    }

    fn known_line(&mut self, line: &[u8]) -> bool {
        OpenMetricsParser::known_line(self, line)
    }
}

impl<'a> Parser<'a> {
    /// The parser for a `Content-Type`.
    pub fn for_content_type(
        body: &'a [u8],
        content_type: &str,
        fallback: Option<ScrapeProtocol>,
    ) -> Result<Self, ScrapeError> {
        let media = media_type(content_type);
        let known = match media.as_deref() {
            Some("application/openmetrics-text") => Some(ScrapeProtocol::OpenMetricsText1_0_0),
            Some("text/plain") => Some(ScrapeProtocol::PrometheusText0_0_4),
            Some("application/vnd.google.protobuf") => Some(ScrapeProtocol::PrometheusProto),
            _ => None,
        };
        let Some(protocol) = known.or(fallback) else {
            return Err(ScrapeError::ContentType(if content_type.is_empty() {
                "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target".to_owned()
            } else if media.is_none() {
                format!(
                    "cannot parse Content-Type {} and no fallback_scrape_protocol for target",
                    quote(content_type)
                )
            } else {
                format!(
                    "received unsupported Content-Type {} and no fallback_scrape_protocol specified for target",
                    quote(content_type)
                )
            }));
        };
        match protocol {
            ScrapeProtocol::OpenMetricsText0_0_1 | ScrapeProtocol::OpenMetricsText1_0_0 => {
                Ok(Self::OpenMetrics(OpenMetricsParser::new(body)))
            }
            ScrapeProtocol::PrometheusText0_0_4 | ScrapeProtocol::PrometheusText1_0_0 => {
                Ok(Self::Text(TextParser::new(body)))
            }
            ScrapeProtocol::PrometheusProto => Ok(Self::Protobuf(body)),
        }
    }
}

/// The lower-case media type without parameters; `None` when it is malformed.
fn media_type(content_type: &str) -> Option<String> {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
    };
    let parameters_are_pairs = content_type
        .split(';')
        .skip(1)
        .map(str::trim)
        .all(|parameter| parameter.is_empty() || parameter.contains('='));
    let parts_are_tokens = match media.split_once('/') {
        Some((kind, sub)) => token(kind) && token(sub),
        None => token(&media),
    };
    (parts_are_tokens && parameters_are_pairs).then_some(media)
}

/// Reads one body into one batch.
pub(super) struct BodyAppender<'a> {
    pub job: &'a JobOptions,
    pub target_labels: &'a Labels,
    pub histograms: HistogramOptions,
    pub timestamp_ms: i64,
    pub cache: &'a mut Cache,
    pub append: &'a mut dyn Append,
}

/// What is known while reading.
struct Progress<'a> {
    counts: Counts,
    last: Option<LineId>,
    /// The last `# TYPE` line.
    family: Option<LineId>,
    appended: u64,
    /// Whether a native histogram could not be brought below the limit of buckets.
    has_too_many_buckets: bool,
    pairs: Vec<Pair<'a>>,
    /// What may yet be remembered of new series of a protobuf body.
    new_bytes_left: usize,
    /// The classic histogram that is being converted.
    open: Option<Open>,
    /// Since when metrics are counted, where the body says so in samples.
    created: Option<Created>,
}

/// A value of either kind.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Float(f64),
    Histogram(&'a Histogram),
}

/// A sample as the body tells it.
#[derive(Clone, Copy, Debug)]
struct Scraped<'a> {
    value: Value<'a>,
    timestamp_ms: Option<i64>,
    /// When counting began; 0: not known.
    start_ms: i64,
}

impl BodyAppender<'_> {
    /// Stages all samples of the body and the stale markers of series that were there before.
    /// After an error the batch is to be thrown away; the counts stand.
    pub fn append(mut self, parser: Parser<'_>) -> (Counts, Result<(), ScrapeError>) {
        let mut progress = Progress {
            counts: Counts::default(),
            last: None,
            family: None,
            appended: 0,
            has_too_many_buckets: false,
            pairs: Vec::new(),
            new_bytes_left: 0,
            open: None,
            created: None,
        };
        self.cache.begin();
        let mut result = match parser {
            Parser::Text(mut parser) => self.read(&mut parser, &mut progress),
            Parser::OpenMetrics(mut parser) => {
                if self.job.reads_starts {
                    let created = Created::read(parser.rest(), self.cache.hasher());
                    progress.created = Some(created);
                }
                self.read(&mut parser, &mut progress)
            }
            Parser::Protobuf(body) => self.read_families(body, &mut progress),
        };
        let limit = self.job.sample_limit;
        if result.is_ok() && limit > 0 && progress.appended > limit {
            result = Err(ScrapeError::SampleLimit);
        }
        if result.is_ok() && progress.has_too_many_buckets {
            result = Err(ScrapeError::BucketLimit);
        }
        if result.is_ok() {
            for (metric, metadata) in self.cache.take_untold() {
                self.append.metadata(&metric, &metadata);
            }
            let vanished = self.cache.end_good();
            append_stale(self.append, &vanished, self.timestamp_ms);
        }
        (progress.counts, result)
    }

    fn read<'a>(
        &mut self,
        parser: &mut impl LineParser<'a>,
        progress: &mut Progress<'a>,
    ) -> Result<(), ScrapeError> {
        loop {
            if let Some((id, line)) = self.cache.predicted(progress.last) {
                if matches!(line.kind, Kind::Metadata(..)) {
                    if parser.known_line(&line.text) {
                        self.known_metadata(id, progress);
                        progress.last = Some(id);
                        continue;
                    }
                } else if let Some(sample) = parser.known_sample(&line.text) {
                    self.sample(id, &sample, false, progress);
                    progress.last = Some(id);
                    continue;
                }
            }
            let id = match parser.next() {
                None => break,
                Some(Err(err)) => return Err(err.into()),
                Some(Ok(Entry::Comment)) => continue,
                Some(Ok(Entry::Sample(sample))) => {
                    let (id, is_new) = self.find_or_insert(sample.series, progress)?;
                    self.sample(id, &sample, is_new, progress);
                    id
                }
                Some(Ok(Entry::Type { metric, metric_type, line })) => {
                    let id = self.metadata(line, &metric, Statement::Type(metric_type));
                    progress.family = Some(id);
                    id
                }
                Some(Ok(Entry::Help { metric, help, line })) => {
                    self.metadata(line, &metric, Statement::Help(help.into_owned()))
                }
                Some(Ok(Entry::Unit { metric, unit, line })) => {
                    self.metadata(line, &metric, Statement::Unit(unit.into_owned()))
                }
            };
            self.cache.link(progress.last, id);
            progress.last = Some(id);
        }
        self.close(progress);
        Ok(())
    }

    fn find_or_insert<'a>(
        &mut self,
        text: &'a [u8],
        progress: &mut Progress<'a>,
    ) -> Result<(LineId, bool), ScrapeError> {
        if let Some(id) = self.cache.find(text) {
            return Ok((id, false));
        }
        let family: Option<(&str, MetricType)> =
            progress.family.and_then(|id| self.cache.family(id));
        let parsed = series::parse(text, family, &mut progress.pairs).map_err(ScrapeError::from);
        let metric = match progress.created {
            Some(_) if parsed.is_ok() => {
                MetricOf::find(self.cache.hasher(), family, &progress.pairs)
            }
            _ => None,
        };
        if metric.is_some_and(|metric| metric.tells_start) {
            return Ok((self.cache.insert(text, Kind::Created), true));
        }
        parsed
            .and_then(|()| self.insert(text, progress))
            // Counted here, because its line ends the scrape.
            .inspect_err(|_| progress.counts.scraped += 1)
            .map(|id| {
                if progress.created.is_some() {
                    self.cache.set_metric(id, metric.map_or(0, |metric| metric.key));
                }
                (id, true)
            })
    }

    /// Remembers the series of `progress.pairs`.
    fn insert(&mut self, text: &[u8], progress: &Progress<'_>) -> Result<LineId, ScrapeError> {
        let (job, target_labels, pairs) = (self.job, self.target_labels, &progress.pairs);
        let stored = sample_labels::stored(job, target_labels, pairs)?;
        let part = self.part_of(progress);
        let Some((part, of_pairs)) = part else {
            return Ok(self.cache.insert(text, stored.map_or(Kind::Dropped, Kind::Series)));
        };
        // The key of the histogram as a whole begins like no line.
        let mut key = vec![0xfe];
        for (name, value) in &of_pairs {
            key.extend_from_slice(name.as_bytes());
            key.push(0xff);
            key.extend_from_slice(value.as_bytes());
            key.push(0xff);
        }
        let of = match self.cache.find(&key) {
            Some(of) => of,
            None => {
                let labels = sample_labels::stored(job, target_labels, &of_pairs)?;
                self.cache.insert(&key, labels.map_or(Kind::Dropped, Kind::Series))
            }
        };
        let kept = stored.filter(|_| self.histograms.always_classic);
        Ok(self.cache.insert(text, Kind::Part(of, part, kept)))
    }

    /// What the series of `progress.pairs` tells of a classic histogram that is to be converted,
    /// and the pairs of that.
    fn part_of<'a>(&self, progress: &Progress<'a>) -> Option<(PartOf, Vec<Pair<'a>>)> {
        let (family, metric_type) = progress.family.and_then(|id| self.cache.family(id))?;
        if !self.histograms.convert || metric_type != MetricType::Histogram {
            return None;
        }
        let get = |wanted: &str| progress.pairs.iter().find(|(name, _)| name == wanted);
        let part = match get(METRIC_NAME)?.1.strip_prefix(family)? {
            "_bucket" => PartOf::Bucket(float::parse(&get("le")?.1)?),
            "_count" => PartOf::Count,
            "_sum" => PartOf::Sum,
            _ => return None,
        };
        let mut pairs: Vec<Pair<'a>> = progress.pairs.clone();
        if matches!(part, PartOf::Bucket(_)) {
            pairs.retain(|(name, _)| name != "le");
        }
        for (name, value) in &mut pairs {
            if name == METRIC_NAME {
                *value = family.to_owned().into();
            }
        }
        Some((part, pairs))
    }

    fn sample(
        &mut self,
        id: LineId,
        sample: &Sample<'_>,
        is_new: bool,
        progress: &mut Progress<'_>,
    ) {
        let is_first = self.cache.see(id);
        let mut start_ms = 0;
        if let Some(created) = &progress.created {
            if self.cache.is_created(id) {
                return;
            }
            start_ms = created.start_ms(self.cache.metric(id));
        }
        match self.cache.part(id) {
            Some((of, part)) => {
                self.part(of, part, sample, is_new, progress);
                if let Some(open) = &mut progress.open {
                    open.start_ms = start_ms;
                }
                if !self.histograms.always_classic {
                    return;
                }
            }
            None if progress.open.is_some() => self.close(progress),
            None => {}
        }
        let (value, timestamp_ms) = (Value::Float(sample.value), sample.timestamp_ms);
        let scraped = Scraped { value, timestamp_ms, start_ms };
        let at = self.stage(id, scraped, is_new, is_first, progress);
        if let (Some(at), Some(own)) = (at, &sample.exemplar)
            && let Some(labels) = series::parse_exemplar_labels(own.labels)
        {
            let timestamp_ms = own.timestamp_ms.unwrap_or(at);
            self.exemplars(id, vec![Exemplar { labels, value: own.value, timestamp_ms }]);
        }
    }

    /// Takes a series of a classic histogram in.
    fn part(
        &mut self,
        of: LineId,
        part: PartOf,
        sample: &Sample<'_>,
        is_new: bool,
        progress: &mut Progress<'_>,
    ) {
        if progress.open.as_ref().is_none_or(|open| open.line != of) {
            self.close(progress);
            progress.open = Some(Open {
                line: of,
                is_new,
                is_first: self.cache.see(of),
                classic: Classic::default(),
                timestamp_ms: sample.timestamp_ms,
                start_ms: 0,
                exemplars: Vec::new(),
            });
        }
        let Some(open) = &mut progress.open else { return };
        open.classic.add(part, sample.value);
        if let Some(own) = &sample.exemplar
            && let Some(timestamp_ms) = own.timestamp_ms
            && let Some(labels) = series::parse_exemplar_labels(own.labels)
        {
            open.exemplars.push(Exemplar { labels, value: own.value, timestamp_ms });
        }
    }

    /// Stages the converted histogram, if one was begun.
    fn close(&mut self, progress: &mut Progress<'_>) {
        let Some(open) = progress.open.take() else { return };
        let Open { line, is_new, is_first, classic, timestamp_ms, start_ms, exemplars } = open;
        let Some(own) = classic.convert() else { return };
        let scraped = Scraped { value: Value::Histogram(&own), timestamp_ms, start_ms };
        if self.stage(line, scraped, is_new, is_first, progress).is_some() {
            self.exemplars(line, exemplars);
        }
    }

    /// Stages a sample; its time if it was taken.
    fn stage(
        &mut self,
        id: LineId,
        scraped: Scraped<'_>,
        is_new: bool,
        is_first: bool,
        progress: &mut Progress<'_>,
    ) -> Option<i64> {
        progress.counts.scraped += 1;
        let labels = self.cache.labels(id)?;
        progress.counts.post_relabel += 1;
        let explicit_ms = scraped.timestamp_ms.filter(|_| self.job.honor_timestamps);
        if !is_first && explicit_ms.is_none() {
            progress.counts.duplicates += 1;
            return None;
        }
        progress.appended += 1;
        let limit = self.job.sample_limit;
        if limit > 0 && progress.appended > limit {
            return None;
        }
        let timestamp_ms = explicit_ms.unwrap_or(self.timestamp_ms);
        let series = SeriesKey::Labels(labels);
        match scraped.value {
            Value::Float(value) => {
                if scraped.start_ms != 0 {
                    self.append.start(scraped.start_ms);
                }
                self.append.float(series, timestamp_ms, value);
            }
            Value::Histogram(own) => match self.histograms.limited(own) {
                Some(own) => {
                    self.append.start(scraped.start_ms);
                    self.append.histogram(series, timestamp_ms, &own);
                }
                None => {
                    progress.has_too_many_buckets = true;
                    return None;
                }
            },
        }
        progress.counts.added += usize::from(is_new);
        if explicit_ms.is_none() || self.job.track_timestamps_staleness {
            self.cache.track(id);
        }
        Some(timestamp_ms)
    }

    /// Stages exemplars of a series.
    fn exemplars(&mut self, id: LineId, mut all: Vec<Exemplar>) {
        let Some(labels) = self.cache.labels(id) else { return };
        all.sort_by(|a, b| {
            let order = a.timestamp_ms.cmp(&b.timestamp_ms);
            order.then(a.value.total_cmp(&b.value)).then_with(|| a.labels.cmp(&b.labels))
        });
        for own in &all {
            self.append.exemplar(SeriesKey::Labels(labels), own);
        }
    }

    fn known_metadata(&mut self, id: LineId, progress: &mut Progress<'_>) {
        if self.cache.family(id).is_some() {
            progress.family = Some(id);
        }
        if let Some((metric, statement)) = self.cache.see_metadata(id) {
            self.cache.state(&metric, statement);
        }
    }

    fn metadata(&mut self, line: &[u8], metric: &str, statement: Statement) -> LineId {
        if let Some(id) = self.cache.find(line) {
            if let Some((metric, statement)) = self.cache.see_metadata(id) {
                self.cache.state(&metric, statement);
            }
            return id;
        }
        let metric: Arc<str> = Arc::from(metric);
        self.cache.state(&metric, statement.clone());
        let id = self.cache.insert(line, Kind::Metadata(metric, statement));
        self.cache.see(id);
        id
    }
}

/// Ends series.
pub(super) fn append_stale(append: &mut dyn Append, series: &[Labels], timestamp_ms: i64) {
    if series.is_empty() {
        return;
    }
    append.reject_out_of_order(true);
    for labels in series {
        append.float(SeriesKey::Labels(labels), timestamp_ms, stale_nan());
    }
    append.reject_out_of_order(false);
}

#[cfg(test)]
mod tests;
