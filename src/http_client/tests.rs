//! Tests of the client against a server on the loopback interface.
