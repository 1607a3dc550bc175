package proxytest

// What a statement says about its caller in its comments: key='value' as sqlcommenter writes it
// (https://google.github.io/sqlcommenter/spec/), or key:value as Rails does in its older format
// (https://api.rubyonrails.org/classes/ActiveRecord/QueryLogs.html) and sqlc with the name of a query.

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// commentTags gathers the tags of all comments, each as "key=value", in the order in which they
// stand; a comment that is not made of tags has none.
func commentTags(sql string) []string {
	if !strings.Contains(sql, "/*") && !strings.Contains(sql, "--") {
		return nil
	}
	var tags []string
	l := lexer{text: sql}
	for end := 0; ; {
		t := l.next()
		for gap := (lexer{text: sql[end:t.start]}); gap.pos < len(gap.text); {
			start := gap.pos
			switch gap.text[start] {
			case '-':
				gap.lineComment()
				tags = append(tags, tagsOf(gap.text[start+2:gap.pos])...)
			case '/':
				gap.blockComment()
				tags = append(tags, tagsOf(strings.TrimSuffix(gap.text[start+2:gap.pos], "*/"))...)
			default:
				gap.pos++
			}
		}
		if t.kind == tokenEnd {
			return tags
		}
		end = t.end
	}
}

const maxTag = 300 // bytes of a value

// tagsOf reads one comment; it is all tags or none.
func tagsOf(comment string) []string {
	var tags []string
	for part := range strings.SplitSeq(comment, ",") {
		part = strings.TrimSpace(part)
		i := strings.IndexAny(part, "=:")
		if i <= 0 || !isKey(part[:i]) {
			return nil
		}
		value := strings.TrimSpace(part[i+1:])
		if part[i] == '=' {
			if len(value) < 2 || value[0] != '\'' || value[len(value)-1] != '\'' {
				return nil
			}
			value = strings.ReplaceAll(value[1:len(value)-1], `\'`, `'`)
			if plain, err := url.PathUnescape(value); err == nil {
				value = plain
			}
		}
		tags = append(tags, unescapeKey(part[:i])+"="+oneLine(value))
	}
	return tags
}

func isKey(key string) bool {
	return !strings.ContainsFunc(key, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`'"();*/`, r)
	})
}

func unescapeKey(key string) string {
	if plain, err := url.PathUnescape(key); err == nil {
		return oneLine(plain)
	}
	return key
}

// oneLine keeps a value from upsetting what it is printed in.
func oneLine(value string) string {
	value = value[:min(len(value), maxTag)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(value, "_"))
}

// fileAndLine looks among tags for the place in the source: file and line, or one tag with both.
func fileAndLine(tags []string) (file string, line int) {
	values := map[string]string{}
	for _, tag := range tags {
		if key, value, ok := strings.Cut(tag, "="); ok {
			values[strings.ToLower(key)] = value
		}
	}
	for _, key := range []string{"file", "filepath", "code.filepath", "code.file.path"} {
		if file = values[key]; file != "" {
			break
		}
	}
	for _, key := range []string{"line", "lineno", "code.lineno", "code.line.number"} {
		if n, err := strconv.Atoi(values[key]); err == nil && file != "" {
			return file, n
		}
	}
	for _, key := range []string{"source_location", "caller", "line", "file"} {
		place := strings.Split(values[key], ":")
		i := slices.IndexFunc(place, func(s string) bool { n, err := strconv.Atoi(s); return err == nil && n > 0 })
		if i > 0 {
			n, _ := strconv.Atoi(place[i])
			return strings.Join(place[:i], ":"), n
		}
	}
	return "", 0
}
