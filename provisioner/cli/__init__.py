"""The command line: arguments in, a view of the result out; the only place that builds adapters."""
