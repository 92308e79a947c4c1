//! Go's `printf`, for values of JSON.

use crate::{
    TemplateError, error,
    functions::{WIDTH_MAX, check_bytes},
    value::Value,
};

/// What is between `%` and the verb.
#[derive(Default)]
struct Flags {
    left: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// Fills in a format. What does not fit shows as Go shows it: `%!d(string=x)`. It gives up before the text has many more than
/// `bytes_max` bytes.
pub(crate) fn printf(format: &str, values: &[Value], bytes_max: usize) -> Result<String, TemplateError> {
    let (mut out, mut values) = (String::new(), values.iter());
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(flag) = rest.next_if(|c| "-+# 0".contains(*c)) {
            match flag {
                '-' => flags.left = true,
                '+' => flags.plus = true,
                '#' => flags.sharp = true,
                ' ' => flags.space = true,
                _ => flags.zero = true,
            }
        }
        flags.width = number(&mut rest, &mut values)?.unwrap_or_default();
        if rest.next_if_eq(&'.').is_some() {
            flags.precision = Some(number(&mut rest, &mut values)?.unwrap_or_default());
        }
        match rest.next() {
            None => out += "%!(NOVERB)",
            Some('%') => out.push('%'),
            Some(verb) => match values.next() {
                None => out += &format!("%!{verb}(MISSING)"),
                Some(value) => out += &filled(&flags, &shown(&flags, verb, value)),
            },
        }
        check_bytes(out.len(), bytes_max)?;
    }
    let extra: Vec<String> = values.map(|value| format!("{}={}", go_type(value), value.show("<nil>"))).collect();
    if !extra.is_empty() {
        out += &format!("%!(EXTRA {})", extra.join(", "));
    }
    Ok(out)
}

/// A width or precision: digits, or `*` for the next value.
fn number<'v>(
    rest: &mut std::iter::Peekable<std::str::Chars<'_>>,
    values: &mut impl Iterator<Item = &'v Value>,
) -> Result<Option<usize>, TemplateError> {
    let mut found = None;
    if rest.next_if_eq(&'*').is_some() {
        let value = values.next().and_then(|value| if let Value::Number(n) = value { n.as_u64() } else { None });
        found = Some(value.and_then(|value| usize::try_from(value).ok()).unwrap_or_default());
    } else {
        while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
            rest.next();
            found = Some(found.unwrap_or(0_usize).saturating_mul(10).saturating_add(digit as usize));
        }
    }
    if found.is_some_and(|found| found > WIDTH_MAX) {
        return error(format!("printf: a width is at most {WIDTH_MAX}"));
    }
    Ok(found)
}

fn filled(flags: &Flags, text: &str) -> String {
    let missing = flags.width.saturating_sub(text.chars().count());
    if flags.left {
        return format!("{text}{}", " ".repeat(missing));
    }
    if flags.zero {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let sign = &text[..text.len() - digits.len()];
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    format!("{}{text}", " ".repeat(missing))
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::Text(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "map[string]interface {}",
    }
}

fn signed(flags: &Flags, text: String) -> String {
    match text.starts_with('-') {
        true => text,
        false if flags.plus => format!("+{text}"),
        false if flags.space => format!(" {text}"),
        false => text,
    }
}

fn shown(flags: &Flags, verb: char, value: &Value) -> String {
    let precise = |text: &str| text.chars().take(flags.precision.unwrap_or(usize::MAX)).collect::<String>();
    match (verb, value) {
        ('s', Value::List(items)) => {
            let items: Vec<String> = items.iter().map(|item| shown(flags, verb, item)).collect();
            format!("[{}]", items.join(" "))
        }
        ('q', Value::List(items)) => {
            let items: Vec<String> = items.iter().map(|item| shown(flags, verb, item)).collect();
            format!("[{}]", items.join(" "))
        }
        ('s' | 'v', Value::Text(text)) => precise(text),
        ('v', Value::Number(number)) if !number.is_f64() => signed(flags, number.to_string()),
        ('v', value) => value.show("<nil>"),
        ('q', Value::Text(text)) => serde_json::Value::from(precise(text)).to_string(),
        ('x' | 'X', Value::Text(text)) => {
            text.bytes().map(|byte| if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") }).collect()
        }
        ('t', Value::Bool(value)) => value.to_string(),
        ('T', value) => go_type(value).to_owned(),
        ('d' | 'b' | 'o' | 'x' | 'X' | 'c' | 'q' | 'U', Value::Number(number)) if !number.is_f64() => {
            let number = number.as_i64().map_or_else(|| i128::from(number.as_u64().unwrap_or_default()), i128::from);
            integer(flags, verb, number)
        }
        ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Value::Number(number)) if number.is_f64() => {
            signed(flags, float(flags, verb, number.as_f64().unwrap_or_default()))
        }
        (_, Value::Null) => format!("%!{verb}(<nil>)"),
        _ => format!("%!{verb}({}={})", go_type(value), value.show("<nil>")),
    }
}

fn integer(flags: &Flags, verb: char, number: i128) -> String {
    let (sign, digits) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    let character = || u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let prefix = if flags.sharp { ["0b", "0", "0x", "0X"] } else { [""; 4] };
    let text = match verb {
        'b' => format!("{sign}{}{digits:b}", prefix[0]),
        'o' => format!("{sign}{}{digits:o}", prefix[1]),
        'x' => format!("{sign}{}{digits:x}", prefix[2]),
        'X' => format!("{sign}{}{digits:X}", prefix[3]),
        'c' => return character().to_string(),
        'q' => return format!("'{}'", character()),
        'U' => return format!("U+{digits:04X}"),
        _ => match flags.precision {
            Some(precision) => format!("{sign}{digits:0precision$}"),
            None => format!("{sign}{digits}"),
        },
    };
    signed(flags, text)
}

fn float(flags: &Flags, verb: char, number: f64) -> String {
    match verb {
        'f' | 'F' => format!("{number:.*}", flags.precision.unwrap_or(6)),
        'e' | 'E' => {
            let text = format!("{number:.*e}", flags.precision.unwrap_or(6));
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}{}{sign}{exponent:0>2}", if verb == 'e' { 'e' } else { 'E' })
        }
        _ => serde_json::Number::from_f64(number)
            .map_or_else(|| number.to_string(), |number| Value::Number(number).show("<nil>")),
    }
}
