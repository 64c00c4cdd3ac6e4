//! Where in an HTML page a piece of template output lands: Go's `html/template` contexts and how
//! they join where branches of a template meet.

use std::fmt;

/// The parser's state at a point of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HtmlContext {
    pub state: State,
    pub delim: Delim,
    pub url_part: UrlPart,
    pub js_ctx: JsCtx,
    pub attr: Attr,
    pub element: Element,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Text,
    Tag,
    AttrName,
    AfterName,
    BeforeValue,
    HtmlCmt,
    /// In a title or a text area.
    Rcdata,
    Attr,
    Url,
    Srcset,
    Js,
    JsDqStr,
    JsSqStr,
    JsTmplLit,
    JsRegexp,
    JsBlockCmt,
    JsLineCmt,
    Css,
    CssDqStr,
    CssSqStr,
    CssDqUrl,
    CssSqUrl,
    CssUrl,
    CssBlockCmt,
    CssLineCmt,
    /// Behind `{{ break }}` or `{{ continue }}`.
    Dead,
}

/// What ends the attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delim {
    None,
    DoubleQuote,
    SingleQuote,
    SpaceOrTagEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UrlPart {
    None,
    PreQuery,
    QueryOrFrag,
    Unknown,
}

/// Whether a slash in JavaScript begins an expression or divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsCtx {
    Regexp,
    DivOp,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attr {
    None,
    Script,
    ScriptType,
    Style,
    Url,
    Srcset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    None,
    Script,
    Style,
    Textarea,
    Title,
}

impl HtmlContext {
    /// Between tags.
    pub const TEXT: Self = Self {
        state: State::Text,
        delim: Delim::None,
        url_part: UrlPart::None,
        js_ctx: JsCtx::Regexp,
        attr: Attr::None,
        element: Element::None,
    };

    /// In a tag, or in the content of an element.
    pub fn inside(state: State, element: Element) -> Self {
        Self { state, element, ..Self::TEXT }
    }

    /// Where an action at this point really writes: an attribute name or an unquoted value.
    pub fn nudged(self) -> Self {
        match self.state {
            State::Tag => Self { state: State::AttrName, ..self },
            State::BeforeValue => Self {
                state: self.attr.value_state(),
                delim: Delim::SpaceOrTagEnd,
                attr: Attr::None,
                ..self
            },
            State::AfterName => Self { state: State::AttrName, attr: Attr::None, ..self },
            _ => self,
        }
    }

    /// The context in which two branches go on together, if there is one.
    pub fn joined(self, other: Self) -> Option<Self> {
        if self == other || other.state == State::Dead {
            return Some(self);
        }
        if self.state == State::Dead {
            return Some(other);
        }
        if (Self { url_part: other.url_part, ..self }) == other {
            return Some(Self { url_part: UrlPart::Unknown, ..self });
        }
        if (Self { js_ctx: other.js_ctx, ..self }) == other {
            return Some(Self { js_ctx: JsCtx::Unknown, ..self });
        }
        let nudged = (self.nudged(), other.nudged());
        if nudged == (self, other) { None } else { nudged.0.joined(nudged.1) }
    }
}

/// As Go prints it in error texts.
impl fmt::Display for HtmlContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, delim, url_part, js_ctx, attr, element } = self;
        let text = format!(
            "{{state{state:?} delim{delim:?} urlPart{url_part:?} jsCtx{js_ctx:?} [] attr{attr:?} element{element:?} <nil>}}"
        );
        let text = text.replace("Html", "HTML").replace("Rcdata", "RCDATA");
        let text = text.replace("Js", "JS").replace("Css", "CSS").replace("Url", "URL");
        f.write_str(&text)
    }
}

impl State {
    /// Whether text here is left out of the page.
    pub fn is_comment(self) -> bool {
        matches!(
            self,
            Self::HtmlCmt
                | Self::JsBlockCmt
                | Self::JsLineCmt
                | Self::CssBlockCmt
                | Self::CssLineCmt
        )
    }

    /// Whether it is within a literal of JavaScript.
    pub fn is_script_literal(self) -> bool {
        matches!(self, Self::JsDqStr | Self::JsSqStr | Self::JsTmplLit | Self::JsRegexp)
    }
}

impl Attr {
    /// What the attribute's value is.
    pub fn value_state(self) -> State {
        match self {
            Self::None | Self::ScriptType => State::Attr,
            Self::Script => State::Js,
            Self::Style => State::Css,
            Self::Url => State::Url,
            Self::Srcset => State::Srcset,
        }
    }

    /// By the attribute's name in small letters.
    pub fn of_name(name: &str) -> Self {
        const URLS: &str = " action archive background cite classid codebase data formaction href \
             icon longdesc manifest poster profile src usemap xmlns ";
        let name = match (name.strip_prefix("data-"), name.split_once(':')) {
            (None, Some(("xmlns", _))) => return Self::Url,
            (Some(rest), _) | (None, Some((_, rest))) => rest,
            (None, None) => name,
        };
        match name {
            "style" => Self::Style,
            "srcset" | "imagesrcset" => Self::Srcset,
            "srcdoc" => Self::None,
            _ if URLS.contains(&format!(" {name} ")) => Self::Url,
            _ if name.starts_with("on") => Self::Script,
            // A guess for attributes of custom elements.
            _ if ["src", "uri", "url"].iter().any(|part| name.contains(part)) => Self::Url,
            _ => Self::None,
        }
    }
}

impl Element {
    /// By the element's name in small letters.
    pub fn of_name(name: &str) -> Self {
        match name {
            "script" => Self::Script,
            "style" => Self::Style,
            "textarea" => Self::Textarea,
            "title" => Self::Title,
            _ => Self::None,
        }
    }

    /// What is between its tags.
    pub fn content(self) -> State {
        match self {
            Self::None => State::Text,
            Self::Script => State::Js,
            Self::Style => State::Css,
            Self::Textarea | Self::Title => State::Rcdata,
        }
    }

    /// The name in its end tag, for elements whose content is not parsed as HTML.
    pub fn raw_name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Script => Some("script"),
            Self::Style => Some("style"),
            Self::Textarea => Some("textarea"),
            Self::Title => Some("title"),
        }
    }
}
