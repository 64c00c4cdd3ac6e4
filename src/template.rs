//! Go text/template for alert texts: lexer, parser, executor, Go's fmt and time layouts.
