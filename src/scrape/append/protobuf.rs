//! Bodies in the protobuf format. A line of the cache is here a key made of name, labels and what
//! of the metric the series tells; so prediction and staleness are those of the text formats.

use std::borrow::Cow;

use super::classic::{Classic, PartOf};
use super::{BodyAppender, Progress, ScrapeError, Scraped, Value};
use crate::encoding::wire::exposition::format_openmetrics;
use crate::encoding::wire::exposition_proto::{Families, Family, Metric, decode_exemplar};
use crate::encoding::wire::series::{Pair, check_unique};
use crate::model::exemplar::Exemplar;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::metadata::MetricType;
use crate::scrape::cache::{Kind, LineId, Statement};
use crate::scrape::sample_labels;

/// Begins every key; no line of the text formats begins so, because it is not UTF-8.
const KEY: u8 = 0xfe;
/// Ends names and values within a key.
const END: u8 = 0xff;

/// What is remembered of new series of a body, in bytes: so much, and so many times the body's length.
/// Each bucket of a histogram has all of its labels, and there may be many of both.
const NEW_BYTES_MIN: usize = if cfg!(test) { 256 << 10 } else { 64 << 20 };
const NEW_BYTES_PER_BYTE: usize = 64;

/// Which series of a metric.
#[derive(Clone, Copy, Debug)]
enum Series {
    /// Under the family's own name.
    Plain,
    /// The native histogram, likewise.
    Native,
    Count,
    Sum,
    Bucket(f64),
    Quantile(f64),
}

impl Series {
    fn suffix(self) -> &'static str {
        match self {
            Self::Plain | Self::Native | Self::Quantile(_) => "",
            Self::Count => "_count",
            Self::Sum => "_sum",
            Self::Bucket(_) => "_bucket",
        }
    }

    /// A byte and a number that no other series of the metric has.
    fn tag(self) -> (u8, u64) {
        match self {
            Self::Plain => (0, 0),
            Self::Native => (1, 0),
            Self::Count => (2, 0),
            Self::Sum => (3, 0),
            Self::Bucket(bound) => (4, bound.to_bits()),
            Self::Quantile(quantile) => (5, quantile.to_bits()),
        }
    }

    /// The label that tells it apart.
    fn label(self) -> Option<(&'static str, String)> {
        match self {
            Self::Bucket(bound) => Some(("le", format_openmetrics(bound))),
            Self::Quantile(quantile) => Some(("quantile", format_openmetrics(quantile))),
            _ => None,
        }
    }
}

/// The buckets of a classic histogram up to the one without bound, which is added if missing.
fn buckets<'a>(metric: &Metric<'a>) -> impl Iterator<Item = (f64, f64, Option<&'a [u8]>)> {
    let mut is_over = false;
    let count = metric.count;
    let mut parts = metric.parts.clone().into_iter();
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let bucket = match parts.next() {
            Some(part) => (part.bound, part.value, part.exemplar),
            None => (f64::INFINITY, count, None),
        };
        is_over = bucket.0 == f64::INFINITY;
        Some(bucket)
    })
}

impl BodyAppender<'_> {
    /// Stages all samples of a body.
    pub(super) fn read_families(
        &mut self,
        body: &[u8],
        progress: &mut Progress<'_>,
    ) -> Result<(), ScrapeError> {
        let mut key = Vec::new();
        progress.new_bytes_left = NEW_BYTES_MIN + body.len().saturating_mul(NEW_BYTES_PER_BYTE);
        for family in Families::new(body) {
            let family = family?;
            let mut is_told = false;
            family.each(|metric| {
                // A family without metrics tells nothing.
                if !is_told {
                    self.tell(&family, progress);
                    is_told = true;
                }
                self.metric(&family, metric, &mut key, progress)
            })?;
        }
        Ok(())
    }

    fn tell(&mut self, family: &Family<'_>, progress: &mut Progress<'_>) {
        let statements = [
            Some(Statement::Help(family.help.to_owned())),
            Some(Statement::Unit(family.unit.to_owned())).filter(|_| !family.unit.is_empty()),
            Some(Statement::Type(family.metric_type)),
        ];
        let texts = [family.help, family.unit, family.metric_type.as_str()];
        for (tag, (statement, text)) in (b'0'..).zip(statements.into_iter().zip(texts)) {
            let Some(statement) = statement else { continue };
            let mut line = vec![KEY, tag];
            line.extend_from_slice(family.name.as_bytes());
            line.push(END);
            line.extend_from_slice(text.as_bytes());
            let id = self.metadata(&line, family.name, statement);
            self.cache.link(progress.last, id);
            progress.last = Some(id);
        }
    }

    fn metric(
        &mut self,
        family: &Family<'_>,
        metric: &Metric<'_>,
        key: &mut Vec<u8>,
        progress: &mut Progress<'_>,
    ) -> Result<(), ScrapeError> {
        key.clear();
        key.push(KEY);
        key.push(b'S');
        key.extend_from_slice(family.name.as_bytes());
        for (name, value) in &metric.labels {
            key.push(END);
            key.extend_from_slice(name.as_bytes());
            key.push(END);
            key.extend_from_slice(value.as_bytes());
        }
        key.push(END);
        let mut own = OneMetric { family, metric, key, body: self, progress };
        match family.metric_type {
            MetricType::Summary => own.summary(),
            MetricType::Histogram | MetricType::GaugeHistogram => own.histogram(),
            _ => {
                let exemplar = metric.exemplars.first().copied();
                own.float(Series::Plain, metric.value, exemplar)
            }
        }
    }
}

/// A metric on its way into the batch.
struct OneMetric<'o, 'b, 'a, 'p> {
    family: &'o Family<'a>,
    metric: &'o Metric<'a>,
    /// What keys of its series begin with.
    key: &'o mut Vec<u8>,
    body: &'o mut BodyAppender<'b>,
    progress: &'o mut Progress<'p>,
}

impl OneMetric<'_, '_, '_, '_> {
    fn summary(&mut self) -> Result<(), ScrapeError> {
        self.float(Series::Count, self.metric.count, None)?;
        self.float(Series::Sum, self.metric.sum, None)?;
        for part in &self.metric.parts {
            self.float(Series::Quantile(part.bound), part.value, None)?;
        }
        Ok(())
    }

    fn histogram(&mut self) -> Result<(), ScrapeError> {
        let options = self.body.histograms;
        let is_native = options.native && self.metric.is_native;
        if is_native {
            self.native()?;
        }
        let converts =
            options.convert && !is_native && self.family.metric_type == MetricType::Histogram;
        let has_classic = !self.metric.parts.is_empty();
        if if is_native {
            options.always_classic && has_classic
        } else {
            !converts || options.always_classic
        } {
            self.float(Series::Count, self.metric.count, None)?;
            self.float(Series::Sum, self.metric.sum, None)?;
            for (bound, value, exemplar) in buckets(self.metric) {
                self.float(Series::Bucket(bound), value, exemplar)?;
            }
        }
        if converts {
            self.converted()?;
        }
        Ok(())
    }

    fn native(&mut self) -> Result<(), ScrapeError> {
        let decoded = self.metric.native();
        let decoded = decoded.map_err(|err| ScrapeError::Histogram(format!("proto: {err}")))?;
        let checked = decoded.into_checked();
        let mut own = checked.map_err(|err| ScrapeError::Histogram(err.to_string()))?;
        if self.family.metric_type == MetricType::GaugeHistogram {
            own.reset_hint = crate::model::histogram::ResetHint::Gauge;
        }
        let exemplars = if self.metric.exemplars.is_empty() {
            self.metric.parts.iter().filter_map(|part| part.exemplar).collect()
        } else {
            self.metric.exemplars.clone()
        };
        self.stage(Series::Native, Value::Histogram(&own.compacted()), &exemplars)
    }

    fn converted(&mut self) -> Result<(), ScrapeError> {
        let mut classic = Classic::default();
        classic.add(PartOf::Count, self.metric.count);
        classic.add(PartOf::Sum, self.metric.sum);
        let mut exemplars = Vec::new();
        for (bound, value, exemplar) in buckets(self.metric) {
            classic.add(PartOf::Bucket(bound), value);
            exemplars.extend(exemplar);
        }
        match classic.convert() {
            Some(own) => self.stage(Series::Native, Value::Histogram(&own), &exemplars),
            None => Ok(()),
        }
    }

    fn float(
        &mut self,
        series: Series,
        value: f64,
        exemplar: Option<&[u8]>,
    ) -> Result<(), ScrapeError> {
        let exemplars: &[&[u8]] = match &exemplar {
            Some(own) => std::slice::from_ref(own),
            None => &[],
        };
        self.stage(series, Value::Float(value), exemplars)
    }

    fn stage(
        &mut self,
        series: Series,
        value: Value<'_>,
        exemplars: &[&[u8]],
    ) -> Result<(), ScrapeError> {
        let (id, is_new) = self.line(series)?;
        self.body.cache.link(self.progress.last, id);
        self.progress.last = Some(id);
        let is_first = self.body.cache.see(id);
        let Metric { timestamp_ms, start_ms, .. } = *self.metric;
        let scraped = Scraped { value, timestamp_ms, start_ms: start_ms.unwrap_or(0) };
        let at = self.body.stage(id, scraped, is_new, is_first, self.progress);
        let Some(timestamp_ms) = at else { return Ok(()) };
        let mut found = Vec::new();
        for bytes in exemplars {
            let Ok(own) = decode_exemplar(bytes) else { continue };
            // Those of a native histogram come again with each scrape: only their own time tells.
            let is_histogram = matches!(value, Value::Histogram(_));
            if own.timestamp_ms.is_none() && is_histogram {
                continue;
            }
            let timestamp_ms = own.timestamp_ms.unwrap_or(timestamp_ms);
            found.push(Exemplar { labels: own.labels, value: own.value, timestamp_ms });
        }
        self.body.exemplars(id, found);
        Ok(())
    }

    /// The line of a series, and whether it is new.
    fn line(&mut self, series: Series) -> Result<(LineId, bool), ScrapeError> {
        let length = self.key.len();
        let (tag, number) = series.tag();
        self.key.push(tag);
        self.key.extend_from_slice(&number.to_le_bytes());
        let found = self.find(series);
        self.key.truncate(length);
        found
    }

    fn find(&mut self, series: Series) -> Result<(LineId, bool), ScrapeError> {
        let cache = &mut *self.body.cache;
        if let Some((id, line)) = cache.predicted(self.progress.last)
            && *line.text == **self.key
        {
            return Ok((id, false));
        }
        if let Some(id) = cache.find(self.key) {
            return Ok((id, false));
        }
        let name = format!("{}{}", self.family.name, series.suffix());
        let mut pairs: Vec<Pair<'_>> = vec![(Cow::Borrowed(METRIC_NAME), Cow::Owned(name))];
        let borrowed = |(name, value): &(&str, &str)| {
            (Cow::Owned((*name).to_owned()), Cow::Owned((*value).to_owned()))
        };
        pairs.extend(self.metric.labels.iter().map(borrowed));
        pairs.extend(series.label().map(|(name, value)| (Cow::Borrowed(name), Cow::Owned(value))));
        let (job, target_labels) = (self.body.job, self.body.target_labels);
        let stored = check_unique(&mut pairs)
            .map_err(ScrapeError::from)
            .and_then(|()| Ok(sample_labels::stored(job, target_labels, &pairs)?))
            .inspect_err(|_| self.progress.counts.scraped += 1)?;
        let bytes = self.key.len() + stored.as_ref().map_or(0, Labels::heap_bytes);
        let left = self.progress.new_bytes_left.checked_sub(bytes);
        self.progress.new_bytes_left = left.ok_or(ScrapeError::TooManyLabels)?;
        let kind = stored.map_or(Kind::Dropped, Kind::Series);
        Ok((self.body.cache.insert(self.key, kind), true))
    }
}
