//! The parser of a command line in gflags' syntax.
use super::refused::Refused;
use super::table::FlagValue;
use super::{Command, Flags, ignored, nearest};
use std::fmt::Write as _;

impl Flags {
    /// Parses the arguments of a command line, without the program's name. The error is a message
    /// for a person.
    pub fn parse<I: IntoIterator<Item = String>>(arguments: I) -> Result<Command, String> {
        let mut parser =
            Parser { flags: Flags::default(), undefok: Vec::new(), unknown: Vec::new(), command: None };
        parser.all(arguments.into_iter().collect(), 0)?;
        parser.finish()
    }
}

/// The message of gflags for a value of the wrong type.
fn illegal(name: &str, value: &str, kind: &str) -> String {
    format!("illegal value '{value}' specified for {kind} flag '{name}'")
}

/// The message of gflags for a flag without its value.
fn lacks_argument(name: &str) -> String {
    format!("flag '--{name}' is missing its argument")
}

/// Whether a flag without '=' takes the next argument as its value.
pub(super) enum Kind {
    Boolean,
    Value,
    IgnoredBoolean,
    IgnoredValue,
    Refused(&'static Refused),
    Unknown,
}

pub(super) struct Parser {
    pub(super) flags: Flags,
    pub(super) undefok: Vec<String>,
    pub(super) unknown: Vec<String>,
    pub(super) command: Option<Command>,
}

impl Parser {
    pub(super) fn all(&mut self, arguments: Vec<String>, depth: u32) -> Result<(), String> {
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(body) = argument.strip_prefix('-') else {
                return Err(format!("'{argument}' is not a flag; flags look like --name=value"));
            };
            let body = body.strip_prefix('-').unwrap_or(body);
            if body.is_empty() && argument == "--" {
                return match arguments.next() {
                    Some(rest) => Err(format!("'{rest}' is not a flag; db_bench takes flags only")),
                    None => Ok(()),
                };
            }
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            // RocksDB's scripts write both --use_existing_db and --use-existing-db.
            let name = name.replace('-', "_");
            self.one(&name, value, &mut arguments, depth)?;
        }
        Ok(())
    }

    pub(super) fn one(
        &mut self,
        name: &str,
        value: Option<String>,
        rest: &mut std::vec::IntoIter<String>,
        depth: u32,
    ) -> Result<(), String> {
        match name {
            "help" | "helpfull" | "helpshort" => {
                self.command = Some(Command::Help);
                return Ok(());
            }
            "version" => {
                self.command = Some(Command::Version);
                return Ok(());
            }
            "build_info" | "nobuild_info" => {
                let wanted = match value {
                    None => name == "build_info",
                    Some(text) => bool::parse(&text).ok_or_else(|| illegal(name, &text, bool::KIND))?,
                };
                if wanted {
                    self.command = Some(Command::BuildInfo);
                }
                return Ok(());
            }
            "undefok" | "flagfile" => {
                let value = value.or_else(|| rest.next()).ok_or_else(|| lacks_argument(name))?;
                for item in value.split(',').filter(|item| !item.is_empty()) {
                    if name == "undefok" {
                        self.undefok.push(item.trim_start_matches('-').replace('-', "_"));
                    } else {
                        self.file(item, depth)?;
                    }
                }
                return Ok(());
            }
            _ => {}
        }
        match self.kind(name) {
            Kind::Boolean => self.assign(name, &value.unwrap_or_else(|| "true".to_owned())),
            Kind::Value => {
                let value = value.or_else(|| rest.next()).ok_or_else(|| lacks_argument(name))?;
                self.assign(name, &value)
            }
            Kind::IgnoredBoolean => {
                self.flags.ignored.push(name.to_owned());
                Ok(())
            }
            Kind::IgnoredValue => {
                if value.is_none() && rest.next().is_none() {
                    return Err(lacks_argument(name));
                }
                self.flags.ignored.push(name.to_owned());
                Ok(())
            }
            Kind::Refused(refused) => {
                let value = match value {
                    None if refused.boolean => "true".to_owned(),
                    None => rest.next().ok_or_else(|| lacks_argument(name))?,
                    Some(value) => value,
                };
                refused.check(&value)
            }
            Kind::Unknown => match name.strip_prefix("no").map(|positive| (positive, self.kind(positive))) {
                Some((positive, Kind::Boolean)) if value.is_none() => self.assign(positive, "false"),
                Some((positive, Kind::IgnoredBoolean)) if value.is_none() => {
                    self.flags.ignored.push(positive.to_owned());
                    Ok(())
                }
                Some((_, Kind::Refused(refused))) if refused.boolean && value.is_none() => Ok(()),
                _ => {
                    // Collected, not reported at once: --undefok may follow.
                    self.unknown.push(name.to_owned());
                    Ok(())
                }
            },
        }
    }

    pub(super) fn kind(&self, name: &str) -> Kind {
        // The lists of ignored names are searched last, so that a flag that gains a meaning needs
        // no edit there.
        let known = self.flags.definitions().into_iter().find(|definition| definition.name == name);
        match known.map(|definition| definition.kind) {
            Some("bool") => Kind::Boolean,
            Some(_) => Kind::Value,
            None if ignored::BOOLEANS.contains(&name) => Kind::IgnoredBoolean,
            None if ignored::VALUES.contains(&name) => Kind::IgnoredValue,
            None => Refused::find(name).map_or(Kind::Unknown, Kind::Refused),
        }
    }

    pub(super) fn assign(&mut self, name: &str, value: &str) -> Result<(), String> {
        match self.flags.set(name, value) {
            Some(Err(kind)) => Err(illegal(name, value, kind)),
            _ => Ok(()),
        }
    }

    pub(super) fn file(&mut self, path: &str, depth: u32) -> Result<(), String> {
        // A file may name further files; the depth bounds cycles.
        if depth > 16 {
            return Err(format!("flag files are nested too deeply at '{path}'"));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read flag file '{path}': {error}"))?;
        let lines = text.lines().map(str::trim).filter(|line| line.starts_with('-')).map(str::to_owned);
        self.all(lines.collect(), depth + 1)
    }

    pub(super) fn finish(mut self) -> Result<Command, String> {
        if let Some(command) = self.command {
            return Ok(command);
        }
        let undefok = self.undefok;
        self.unknown.retain(|name| {
            let positive = name.strip_prefix("no").unwrap_or(name);
            !undefok.iter().any(|allowed| allowed == name || allowed == positive)
        });
        if self.unknown.is_empty() {
            self.flags.ignored.sort();
            self.flags.ignored.dedup();
            // RocksDB ignores the case of codec names.
            self.flags.compression_type.make_ascii_lowercase();
            self.flags.check()?;
            return Ok(Command::Run(Box::new(self.flags)));
        }
        let mut message = String::new();
        for name in &self.unknown {
            let _ = write!(
                message,
                "{}unknown command line flag '{name}'",
                if message.is_empty() { "" } else { "\n" }
            );
            let definitions = Flags::default().definitions();
            let mut near = nearest(name, definitions.iter().map(|definition| definition.name));
            if near.is_empty() {
                near = nearest(name, ignored::BOOLEANS.iter().chain(ignored::VALUES).copied());
            }
            if !near.is_empty() {
                let _ = write!(message, "; did you mean --{}?", near.join(", --"));
            }
        }
        Err(message)
    }
}
