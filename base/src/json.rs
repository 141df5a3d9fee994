//! JSON text (RFC 8259), walked to where a pointer (RFC 6901) points, without building anything.
//!
//! Only the text before the value is read, and only as closely as finding it needs: text that is no
//! JSON may yield a value or none, but always the same one, and never a panic. Skipping uses a
//! counter of brackets instead of recursion, so depth costs nothing.

/// A JSON pointer, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Pointer {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug)]
struct Token {
    name: Vec<u8>,
    /// Its meaning as an array index, if it has one.
    index: Option<u64>,
}

/// A value in a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// The text between the quotes.
    String(Content<'a>),
    /// A number as it stands.
    Number(&'a str),
    /// A truth value.
    Boolean(bool),
    /// `null`.
    Null,
    /// The scanner stands at it.
    Array,
    /// The scanner stands at it.
    Object,
}

/// The content of a string as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Content<'a> {
    raw: &'a [u8],
    has_escapes: bool,
}

impl Pointer {
    /// Takes `pointer` apart. REQUIRES: it is one, as `Builtin::validate` checks.
    pub fn new(pointer: &str) -> Pointer {
        let tokens = pointer.split('/').skip(1).map(|token| {
            // In this order, so that `~01` becomes `~1`.
            let name = token.replace("~1", "/").replace("~0", "~").into_bytes();
            let is_index = !name.is_empty()
                && name.iter().all(u8::is_ascii_digit)
                && (name.len() == 1 || name[0] != b'0');
            let index = if is_index { token.parse().ok() } else { None };
            Token { name, index }
        });
        Pointer { tokens: tokens.collect() }
    }

    /// A scanner in front of the value that it points to, if there is one.
    pub fn find<'a>(&self, text: &'a [u8]) -> Option<Scanner<'a>> {
        let mut scanner = Scanner { text, at: 0 };
        scanner.skip_space();
        for token in &self.tokens {
            match scanner.peek()? {
                b'{' => scanner.enter_member(&token.name)?,
                b'[' => scanner.enter_element(token.index?)?,
                _ => return None,
            }
        }
        Some(scanner)
    }
}

impl<'a> Content<'a> {
    /// The content, if nothing in it is escaped.
    pub fn plain(&self) -> Option<&'a [u8]> {
        (!self.has_escapes).then_some(self.raw)
    }

    /// Appends the content without escapes. Returns whether it could be read.
    pub fn append_to(&self, out: &mut Vec<u8>) -> bool {
        let mut rest = self.raw;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
            out.extend_from_slice(&rest[..at]);
            let Some((character, after)) = escape(&rest[at + 1..]) else { return false };
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
        }
        out.extend_from_slice(rest);
        true
    }

    fn is(&self, name: &[u8]) -> bool {
        if !self.has_escapes {
            return self.raw == name;
        }
        // An escape is longer than its character.
        let mut unescaped = Vec::new();
        self.raw.len() > name.len() && self.append_to(&mut unescaped) && unescaped == name
    }
}

/// The character of an escape, and the rest of the text. `rest` starts after the backslash.
fn escape(rest: &[u8]) -> Option<(char, &[u8])> {
    let (kind, rest) = rest.split_first()?;
    let character = match kind {
        b'"' | b'\\' | b'/' => char::from(*kind),
        b'b' => '\u{8}',
        b'f' => '\u{C}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let (unit, rest) = code_unit(rest)?;
            let Some(character) = char::from_u32(unit) else {
                // The first half of a character beyond 16 bits; the second half follows.
                let (second, rest) = code_unit(rest.strip_prefix(b"\\u")?)?;
                let pair = [unit as u16, second as u16];
                return Some((char::decode_utf16(pair).next()?.ok()?, rest));
            };
            return Some((character, rest));
        }
        _ => return None,
    };
    Some((character, rest))
}

fn code_unit(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = rest.split_first_chunk::<4>()?;
    let mut unit = 0;
    for digit in digits {
        unit = unit << 4 | char::from(*digit).to_digit(16)?;
    }
    Some((unit, rest))
}

/// A position in a text.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// The value that follows; an array or object is not entered.
    pub fn value(&mut self) -> Option<Value<'a>> {
        match self.peek()? {
            b'"' => Some(Value::String(self.string()?)),
            b'{' => Some(Value::Object),
            b'[' => Some(Value::Array),
            _ => match self.word() {
                b"true" => Some(Value::Boolean(true)),
                b"false" => Some(Value::Boolean(false)),
                b"null" => Some(Value::Null),
                word => {
                    let text = std::str::from_utf8(word).ok()?;
                    is_number(word).then_some(Value::Number(text))
                }
            },
        }
    }

    /// The value that follows, as it stands in the text.
    pub fn value_text(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        self.skip_value()?;
        Some(&self.text[start..self.at])
    }

    /// Calls `each` with the elements of the array that follows, until something cannot be read.
    /// Arrays and objects in it are left out.
    pub fn elements(&mut self, mut each: impl FnMut(Value<'a>)) {
        let mut number = 0;
        while self.next_element(number).is_some() {
            number += 1;
            match self.clone().value() {
                Some(Value::Array | Value::Object) => {}
                Some(value) => each(value),
                None => return,
            }
            if self.skip_value().is_none() {
                return;
            }
        }
    }

    /// Moves in front of the element `number`, from the array's bracket or from after the previous
    /// element.
    fn next_element(&mut self, number: u64) -> Option<()> {
        self.skip_space();
        let before = self.byte()?;
        self.skip_space();
        let opened = if number == 0 { b'[' } else { b',' };
        (before == opened && self.peek()? != b']').then_some(())
    }

    fn enter_element(&mut self, index: u64) -> Option<()> {
        for number in 0..index {
            self.next_element(number)?;
            self.skip_value()?;
        }
        self.next_element(index)
    }

    fn enter_member(&mut self, name: &[u8]) -> Option<()> {
        loop {
            // The brace, or a comma.
            self.at += 1;
            self.skip_space();
            let member = self.string()?;
            self.skip_space();
            if self.byte()? != b':' {
                return None;
            }
            self.skip_space();
            if member.is(name) {
                return Some(());
            }
            self.skip_value()?;
            self.skip_space();
            if self.peek()? != b',' {
                return None;
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Option<Content<'a>> {
        if self.byte()? != b'"' {
            return None;
        }
        let start = self.at;
        let mut has_escapes = false;
        loop {
            let rest = self.text.get(self.at..)?;
            self.at += rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            if self.text[self.at] == b'"' {
                self.at += 1;
                return Some(Content { raw: &self.text[start..self.at - 1], has_escapes });
            }
            has_escapes = true;
            self.at += 2;
        }
    }

    /// A number or a word.
    fn word(&mut self) -> &'a [u8] {
        let rest = &self.text[self.at..];
        let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        let len = rest.iter().position(ends).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn skip_value(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => drop(self.string()?),
            b'{' | b'[' => {
                let mut depth = 0usize;
                loop {
                    let rest = self.text.get(self.at..)?;
                    self.at +=
                        rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'))?;
                    match self.text[self.at] {
                        b'"' => {
                            self.string()?;
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        _ => depth -= 1,
                    }
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
            _ => {
                if self.word().is_empty() {
                    return None;
                }
            }
        }
        Some(())
    }
}

/// Whether `word` has the shape of a JSON number.
fn is_number(word: &[u8]) -> bool {
    fn digits(word: &[u8]) -> usize {
        word.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }
    let mut rest = word.strip_prefix(b"-").unwrap_or(word);
    let integer = digits(rest);
    if integer == 0 || integer > 1 && rest[0] == b'0' {
        return false;
    }
    rest = &rest[integer..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = digits(fraction);
        if len == 0 {
            return false;
        }
        rest = &fraction[len..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', exponent @ ..] => exponent,
            exponent => exponent,
        };
        let len = digits(exponent);
        if len == 0 {
            return false;
        }
        rest = &exponent[len..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(text: &'a str, pointer: &str) -> Option<&'a str> {
        let text = Pointer::new(pointer).find(text.as_bytes())?.value_text()?;
        Some(std::str::from_utf8(text).unwrap())
    }

    #[test]
    fn pointers_of_the_standard_find_what_it_says() {
        // The document of section 5 of RFC 6901.
        let text = r#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6,
            " ": 7, "m~n": 8}"#;
        let cases = [
            ("", Some(text)),
            ("/foo", Some(r#"["bar", "baz"]"#)),
            ("/foo/0", Some(r#""bar""#)),
            ("/foo/1", Some(r#""baz""#)),
            ("/", Some("0")),
            ("/a~1b", Some("1")),
            ("/c%d", Some("2")),
            ("/e^f", Some("3")),
            ("/g|h", Some("4")),
            (r"/i\j", Some("5")),
            (r#"/k"l"#, Some("6")),
            ("/ ", Some("7")),
            ("/m~0n", Some("8")),
            ("/foo/2", None),
            ("/foo/-", None),
            ("/foo/00", None),
            ("/foo/+1", None),
            ("/foo/18446744073709551616", None),
            ("/foo/bar", None),
            ("/nothing", None),
            ("/a~1b/c", None),
        ];
        for (pointer, expected) in cases {
            assert_eq!(find(text, pointer), expected, "{pointer}");
        }
        assert_eq!(find(r#"{"~1": 1, "/": 2}"#, "/~01"), Some("1"));
    }

    #[test]
    fn what_stands_before_is_skipped_whole() {
        let text = r#" { "a" : {"x":[1,{"b":"}]"}]} , "s\"b":"\\", "b" : [ [ ] , { } , -1.5e3 , true ] } "#;
        assert_eq!(find(text, "/b/0"), Some("[ ]"));
        assert_eq!(find(text, "/b/1"), Some("{ }"));
        assert_eq!(find(text, "/b/2"), Some("-1.5e3"));
        assert_eq!(find(text, "/b/3"), Some("true"));
        assert_eq!(find(text, "/b/4"), None);
        assert_eq!(find(text, "/a/x/1/b"), Some(r#""}]""#));
        assert_eq!(find(r#"{"a":1,"a":2}"#, "/a"), Some("1"));
        assert_eq!(find("[]", "/0"), None);
        assert_eq!(find("{}", "/"), None);
        assert_eq!(find("{\"a\" 1}", "/a"), None);
        assert_eq!(find("[1 2]", "/1"), None);
        assert_eq!(find("", ""), None);
        let deep = format!("{{\"deep\":{}{},\"a\":1}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(find(&deep, "/a"), Some("1"));
    }

    #[test]
    fn strings_are_unescaped() {
        let cases: &[(&str, Option<&str>)] = &[
            (r#""plain é""#, Some("plain é")),
            (r#""\"\\\/\b\f\n\r\t""#, Some("\"\\/\u{8}\u{C}\n\r\t")),
            (r#""\u00e9\u20AC x""#, Some("é€ x")),
            (r#""\ud83d\ude00""#, Some("\u{1F600}")),
            (r#""\ud83d""#, None),
            (r#""\ude00\ud83d""#, None),
            (r#""\ud83d\u0041""#, None),
            (r#""\u12""#, None),
            (r#""\u+123""#, None),
            (r#""\x""#, None),
        ];
        for (text, expected) in cases {
            let Some(Value::String(content)) = Pointer::new("").find(text.as_bytes()).unwrap().value() else {
                panic!("{text} is a string");
            };
            let mut out = Vec::new();
            let found = content.append_to(&mut out).then(|| String::from_utf8(out).unwrap());
            assert_eq!(found.as_deref(), *expected, "{text}");
        }
        for cut in ["\"", "\"abc", "\"abc\\", "\"abc\\\""] {
            assert_eq!(Pointer::new("").find(cut.as_bytes()).unwrap().value(), None, "{cut}");
        }
        assert_eq!(find(r#"{"\u0061b": 1}"#, "/ab"), Some("1"));
    }

    #[test]
    fn numbers_have_the_shape_of_the_standard() {
        for word in ["0", "-0", "10", "-1.5", "1e5", "1E-5", "0.0e+00", "12345678901234567890"] {
            assert!(is_number(word.as_bytes()), "{word}");
        }
        for word in ["", "-", "01", "1.", ".5", "+1", "1e", "1e+", "1x", "nan", "0x10", "1.5.5", "- 1"] {
            assert!(!is_number(word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn elements_end_where_the_text_cannot_be_read() {
        let cases = [
            ("[1, \"a\", [2], {\"b\":3}, true, null]", 4),
            ("[]", 0),
            ("[1, 2", 2),
            ("[1, x, 2]", 1),
            ("[1,]", 1),
            ("7", 0),
        ];
        for (text, expected) in cases {
            let mut count = 0;
            Pointer::new("").find(text.as_bytes()).unwrap().elements(|_| count += 1);
            assert_eq!(count, expected, "{text}");
        }
    }
}
