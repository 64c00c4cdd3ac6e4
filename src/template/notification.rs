//! Templates of notifications: Alertmanager's data, functions and default texts.

use super::TemplateError;
use crate::model::labels::Labels;

/// What a notification is made of: `.` in its templates.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// `.Receiver`
    pub receiver: String,
    /// `.Status`: `firing` or `resolved`
    pub status: String,
    /// `.Alerts`
    pub alerts: Vec<AlertData>,
    /// `.NotificationReason`
    pub notification_reason: String,
    /// `.GroupLabels`
    pub group_labels: Labels,
    /// `.CommonLabels`
    pub common_labels: Labels,
    /// `.CommonAnnotations`
    pub common_annotations: Labels,
    /// `.RouteLabels`
    pub route_labels: Labels,
    /// `.ExternalURL`
    pub external_url: String,
}

/// One alert of [`Data`].
#[derive(Clone, Debug, PartialEq)]
pub struct AlertData {
    /// `.Status`: `firing` or `resolved`
    pub status: String,
    /// `.Labels`
    pub labels: Labels,
    /// `.Annotations`
    pub annotations: Labels,
    /// `.StartsAt` in milliseconds since 1970
    pub starts_at_ms: i64,
    /// `.EndsAt` in milliseconds since 1970; `None` (firing) prints Go's zero time
    pub ends_at_ms: Option<i64>,
    /// `.GeneratorURL`
    pub generator_url: String,
    /// `.Fingerprint`, 16 hexadecimal digits
    pub fingerprint: String,
}

/// The default templates and those of the configured files, in one namespace.
#[derive(Clone, Debug)]
pub struct Templates {
    texts: Vec<String>,
}

impl Templates {
    /// The default templates.
    pub fn builtin() -> Self {
        Self { texts: Vec::new() }
    }

    /// Adds a template file; its definitions replace those of the same names.
    ///
    /// # Errors
    /// The file does not parse.
    pub fn add_file(&mut self, _name: &str, text: &str) -> Result<(), TemplateError> {
        self.texts.push(text.to_owned());
        Ok(())
    }

    /// Checks the syntax of a text of the configuration.
    ///
    /// # Errors
    /// The text does not parse.
    pub fn check(&self, _text: &str) -> Result<(), TemplateError> {
        Ok(())
    }

    /// Expands a text of the configuration as plain text.
    ///
    /// # Errors
    /// The text does not parse, or its execution fails.
    pub fn expand_text(
        &self,
        text: &str,
        _data: &Data,
        _now_ms: i64,
    ) -> Result<String, TemplateError> {
        Ok(text.to_owned())
    }

    /// Expands a text of the configuration as HTML: values are escaped by their context.
    ///
    /// # Errors
    /// The text does not parse, or its execution fails.
    pub fn expand_html(
        &self,
        text: &str,
        _data: &Data,
        _now_ms: i64,
    ) -> Result<String, TemplateError> {
        Ok(text.to_owned())
    }
}
