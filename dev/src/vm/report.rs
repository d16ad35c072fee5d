//! What the guest tells the host: lines on a serial port of their own, apart from what the kernel
//! prints. The programs that it runs may print anything: whatever is no such line is left out.

use std::fmt;

/// The most lines that are kept of one program's output, or of one of its files.
const MOST_LINES: usize = 20_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// The guest runs, on a kernel of this release.
    Hello(String),
    /// A program is started.
    Begin(String),
    /// A line of its output.
    Out(String),
    /// A line of its complaints.
    Err(String),
    /// A file that it has written follows.
    File(String),
    /// A line of that file.
    Data(String),
    /// How it ended.
    End(Ended),
    /// All have run.
    Done,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Exit(i32),
    Signal(i32),
    /// Killed after so many seconds.
    Late(u64),
    /// Not even started: why.
    Not(String),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Line::Hello(release) => write!(f, "hello {release}"),
            Line::Begin(name) => write!(f, "begin {name}"),
            Line::Out(text) => write!(f, "out {text}"),
            Line::Err(text) => write!(f, "err {text}"),
            Line::File(name) => write!(f, "file {name}"),
            Line::Data(text) => write!(f, "data {text}"),
            Line::End(Ended::Exit(code)) => write!(f, "end exit {code}"),
            Line::End(Ended::Signal(number)) => write!(f, "end signal {number}"),
            Line::End(Ended::Late(seconds)) => write!(f, "end late {seconds}"),
            Line::End(Ended::Not(why)) => write!(f, "end not {why}"),
            Line::Done => write!(f, "done"),
        }
    }
}

impl Line {
    pub(super) fn parse(line: &str) -> Option<Line> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let text = || rest.to_string();
        Some(match word {
            "hello" => Line::Hello(text()),
            "begin" => Line::Begin(text()),
            "out" => Line::Out(text()),
            "err" => Line::Err(text()),
            "file" => Line::File(text()),
            "data" => Line::Data(text()),
            "end" => Line::End(Ended::parse(rest)?),
            "done" => Line::Done,
            _ => return None,
        })
    }
}

impl Ended {
    fn parse(text: &str) -> Option<Ended> {
        let (how, rest) = text.split_once(' ')?;
        Some(match how {
            "exit" => Ended::Exit(rest.parse().ok()?),
            "signal" => Ended::Signal(rest.parse().ok()?),
            "late" => Ended::Late(rest.parse().ok()?),
            "not" => Ended::Not(rest.to_string()),
            _ => return None,
        })
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Ended::Exit(code) => write!(f, "exit status {code}"),
            Ended::Signal(number) => write!(f, "killed by signal {number}"),
            Ended::Late(seconds) => write!(f, "not over after {seconds} s: killed"),
            Ended::Not(why) => write!(f, "not started: {why}"),
        }
    }
}

/// What a guest has told so far.
#[derive(Debug, Default)]
pub(super) struct Guest {
    /// The release of its kernel, once it runs.
    pub(super) release: Option<String>,
    pub(super) ran: Vec<Ran>,
    /// It told everything.
    pub(super) done: bool,
}

/// A program that the guest ran.
#[derive(Debug, Default)]
pub(super) struct Ran {
    pub(super) payload: String,
    pub(super) out: Vec<String>,
    pub(super) err: Vec<String>,
    files: Vec<(String, Vec<String>)>,
    /// How it ended; None if the guest ended first.
    pub(super) ended: Option<Ended>,
}

impl Guest {
    /// Takes a line; the program that ended, if it says so.
    pub(super) fn line(&mut self, line: &str) -> Option<&Ran> {
        let line = Line::parse(line)?;
        match line {
            Line::Hello(release) => self.release = Some(release),
            Line::Begin(payload) => self.ran.push(Ran {
                payload,
                ..Ran::default()
            }),
            Line::Done => self.done = true,
            // Of the program that runs.
            line => {
                let ran = self.ran.last_mut().filter(|ran| ran.ended.is_none())?;
                match line {
                    Line::Out(text) => keep(&mut ran.out, text),
                    Line::Err(text) => keep(&mut ran.err, text),
                    Line::File(name) => ran.files.push((name, Vec::new())),
                    Line::Data(text) => keep(&mut ran.files.last_mut()?.1, text),
                    Line::End(ended) => {
                        ran.ended = Some(ended);
                        return self.ran.last();
                    }
                    Line::Hello(_) | Line::Begin(_) | Line::Done => {}
                }
            }
        }
        None
    }
}

fn keep(lines: &mut Vec<String>, line: String) {
    if lines.len() < MOST_LINES {
        lines.push(line);
    }
}

impl Ran {
    /// The lines of a file that it wrote.
    pub(super) fn file(&self, name: &str) -> Option<&[String]> {
        let file = self.files.iter().find(|(known, _)| known == name);
        file.map(|(_, lines)| lines.as_slice())
    }
}

#[cfg(test)]
impl Ran {
    /// A program that was run, for tests of what is made of it.
    pub(super) fn test(out: &str, err: &str, files: &[(&str, &str)], ended: Option<Ended>) -> Ran {
        let lines = |text: &str| text.lines().map(str::to_string).collect();
        let files = files
            .iter()
            .map(|(name, text)| (name.to_string(), lines(text)));
        Ran {
            payload: "a".to_string(),
            out: lines(out),
            err: lines(err),
            files: files.collect(),
            ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let text = || "two  words ".to_string();
        for line in [
            Line::Hello("7.2.13+deb14-amd64".to_string()),
            Line::Begin(text()),
            Line::Out(text()),
            Line::Out(String::new()),
            Line::Err("end exit 0".to_string()),
            Line::File("/tmp/x".to_string()),
            Line::Data(text()),
            Line::End(Ended::Exit(101)),
            Line::End(Ended::Signal(9)),
            Line::End(Ended::Late(60)),
            Line::End(Ended::Not(text())),
            Line::Done,
        ] {
            assert_eq!(Line::parse(&line.to_string()), Some(line));
        }
    }

    #[test]
    fn what_is_no_line_is_left_out() {
        for line in [
            "",
            "end",
            "end exit",
            "end exit x",
            "end so",
            "[ 1.0] out",
            "x y",
        ] {
            assert_eq!(Line::parse(line), None, "{line}");
        }
    }

    #[test]
    fn programs_are_kept_apart() {
        let mut guest = Guest::default();
        // Nothing runs yet.
        assert!(guest.line("out lost").is_none() && guest.line("end exit 0").is_none());
        for line in ["hello 6.12", "begin a", "out 1", "err 2", "data lost"] {
            assert!(guest.line(line).is_none(), "{line}");
        }
        for line in ["file /tmp/x", "data 3", "noise", "data 4"] {
            assert!(guest.line(line).is_none(), "{line}");
        }
        let ran = guest.line("end exit 1").unwrap();
        assert_eq!(
            (ran.payload.as_str(), &ran.ended),
            ("a", &Some(Ended::Exit(1)))
        );
        assert_eq!(
            (ran.out.join(" "), ran.err.join(" ")),
            ("1".into(), "2".into())
        );
        assert_eq!(ran.file("/tmp/x").unwrap(), ["3", "4"]);
        assert_eq!(ran.file("/tmp/y"), None);
        // It ended: this is nobody's.
        assert!(guest.line("out 5").is_none() && guest.line("end exit 0").is_none());
        guest.line("begin b");
        assert_eq!(guest.ran[0].out.len(), 1);
        assert_eq!(guest.ran[1].ended, None);
        assert!(!guest.done);
        guest.line("done");
        assert!(guest.done && guest.release.as_deref() == Some("6.12"));
    }

    #[test]
    fn endless_output_is_cut() {
        let mut guest = Guest::default();
        guest.line("begin a");
        for _ in 0..MOST_LINES + 10 {
            guest.line("out again");
        }
        assert_eq!(guest.ran[0].out.len(), MOST_LINES);
    }
}
