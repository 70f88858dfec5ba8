//! Ways into JSON, the part of RFC 9535 that checks need: `$.status`, `$['a b']`, `$.items[0].id`, `$.items[-1]`, `$.items[*].ok`.
use serde_json::Value;

/// So many values are looked at.
const MOST: usize = 100_000;

/// A way into JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    /// From the end when it is negative.
    Index(i64),
    All,
}

impl JsonPath {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, and at which byte.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut steps = Vec::new();
        let Some(mut rest) = text.strip_prefix('$') else {
            return Err((0, "a path into JSON begins with `$`, as in `$.status`".to_owned()));
        };
        let at = |rest: &str| text.len() - rest.len();
        while !rest.is_empty() {
            let (step, after) = if let Some(inside) = rest.strip_prefix('[') {
                bracket(inside).map_err(|(left, why)| (at(left), why))?
            } else if let Some(name) = rest.strip_prefix('.') {
                if name.starts_with('.') {
                    return Err((at(rest), "`..` is not known: name each step of the way".to_owned()));
                }
                let end = name.find(['.', '[']).unwrap_or(name.len());
                let (name, after) = name.split_at(end);
                let fits = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-') || !letter.is_ascii();
                match name {
                    "*" => (Step::All, after),
                    "" => return Err((at(rest), "a name is missing after the `.`".to_owned())),
                    name if name.chars().all(fits) => (Step::Name(name.to_owned()), after),
                    name => {
                        return Err((at(rest) + 1, format!("write `['{name}']` for a name with other letters in it")));
                    }
                }
            } else {
                return Err((at(rest), "expected `.name` or `[…]` here".to_owned()));
            };
            steps.push(step);
            rest = after;
        }
        Ok(Self { text: text.to_owned(), steps })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The values that it leads to.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                match (step, value) {
                    (Step::Name(name), Value::Object(fields)) => next.extend(fields.get(name)),
                    (Step::Index(index), Value::Array(items)) => {
                        let index = usize::try_from(*index).ok().or_else(|| {
                            items.len().checked_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX))
                        });
                        next.extend(index.and_then(|index| items.get(index)));
                    }
                    (Step::All, Value::Array(items)) => next.extend(items),
                    (Step::All, Value::Object(fields)) => next.extend(fields.values()),
                    _ => {}
                }
                next.truncate(MOST);
            }
            found = next;
        }
        found
    }
}

/// What stands behind a `[`.
fn bracket(inside: &str) -> Result<(Step, &str), (&str, String)> {
    let closed = |step, rest: &'_ str| -> Result<(Step, usize), String> {
        rest.starts_with(']').then_some((step, 1)).ok_or_else(|| "expected `]` here".to_owned())
    };
    if let Some(quote) = inside.chars().next().filter(|letter| matches!(letter, '\'' | '"')) {
        let (mut name, mut letters) = (String::new(), inside.char_indices().skip(1));
        while let Some((index, letter)) = letters.next() {
            match letter {
                '\\' => name.extend(letters.next().map(|(_, letter)| letter)),
                letter if letter == quote => {
                    let rest = &inside[index + 1..];
                    let (step, used) = closed(Step::Name(name), rest).map_err(|why| (rest, why))?;
                    return Ok((step, &rest[used..]));
                }
                letter => name.push(letter),
            }
        }
        return Err((inside, "this name has no end: a quote is missing".to_owned()));
    }
    let end = inside.find(']').ok_or_else(|| (inside, "a `]` is missing".to_owned()))?;
    let step = match inside[..end].trim() {
        "*" => Step::All,
        number => Step::Index(
            number
                .parse()
                .map_err(|_| (inside, "expected a number, `*` or a name in quotes within the brackets".to_owned()))?,
        ),
    };
    Ok((step, &inside[end + 1..]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ways_lead_to_values_and_nowhere_else() {
        let value = json!({ "a": { "b c": [1, { "d": true }, 3] }, "-x_1": null, "名": "ok" });
        for (path, expected) in [
            ("$", vec![value.clone()]),
            ("$.a['b c'][0]", vec![json!(1)]),
            ("$.a[\"b c\"][-1]", vec![json!(3)]),
            ("$.a['b c'][1].d", vec![json!(true)]),
            ("$.a['b c'][*]", vec![json!(1), json!({ "d": true }), json!(3)]),
            ("$.a.*[*].d", vec![json!(true)]),
            ("$.-x_1", vec![json!(null)]),
            ("$.名", vec![json!("ok")]),
            ("$.a['b c'][3]", vec![]),
            ("$.a['b c'][-4]", vec![]),
            ("$.nothing.here", vec![]),
        ] {
            let found: Vec<Value> = JsonPath::parse(path).unwrap().find(&value).into_iter().cloned().collect();
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_way_is_told_where() {
        for (path, at) in [
            ("a", 0),
            ("", 0),
            ("$a", 1),
            ("$..a", 1),
            ("$.", 1),
            ("$.a.", 3),
            ("$.a[x]", 4),
            ("$.a[0", 4),
            ("$['a", 2),
            ("$['a'x]", 5),
            ("$.a b", 2),
        ] {
            assert_eq!(JsonPath::parse(path).unwrap_err().0, at, "{path}");
        }
    }
}
