package aurora

// A Spec as JSON: times are written as "5m" or "30d", not as numbers, and a misspelt
// field is an error.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// ParseSpec reads a Spec from JSON. Times are texts: "30s", "5m", "36h", "30d". A field
// that does not exist is an error. The result is not checked: see [Spec.Validate].
func ParseSpec(data []byte) (Spec, error) {
	var s Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return Spec{}, fmt.Errorf("aurora: the spec: %w", err)
	}
	return s, nil
}

type plainSpec Spec // without the methods below

// MarshalJSON writes what [ParseSpec] reads.
func (s Spec) MarshalJSON() ([]byte, error) {
	raw, err := json.Marshal(plainSpec(s))
	if err != nil {
		return nil, err
	}
	var v any
	if err := decodeExactly(raw, &v); err != nil {
		return nil, err
	}
	v, err = convertTimes(reflect.TypeFor[Spec](), v, "", func(_ string, v any) (any, error) {
		number, _ := v.(json.Number) // decodeExactly leaves numbers as they were written
		n, err := number.Int64()
		return formatTime(time.Duration(n)), err
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// UnmarshalJSON is strict, as described at [ParseSpec]. Fields that the JSON does not
// mention keep their values, so a preset can be read over.
func (s *Spec) UnmarshalJSON(data []byte) error {
	var v any
	if err := decodeExactly(data, &v); err != nil {
		return err
	}
	v, err := convertTimes(reflect.TypeFor[Spec](), v, "", func(path string, v any) (any, error) {
		text, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf(`%s: %v is no time; write it as "30s", "5m" or "30d"`, path, v)
		}
		d, err := parseTime(text)
		if err != nil {
			return nil, fmt.Errorf(`%s: %q is no time; write it as "30s", "5m" or "30d"`, path, text)
		}
		return int64(d), nil
	})
	if err != nil {
		return err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	return dec.Decode((*plainSpec)(s))
}

func decodeExactly(data []byte, v *any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return dec.Decode(v)
}

// convertTimes calls convert for every value that belongs into a time.Duration of t.
func convertTimes(t reflect.Type, v any, path string, convert func(path string, v any) (any, error)) (any, error) {
	if t == reflect.TypeFor[time.Duration]() && v != nil {
		return convert(path, v)
	}
	switch v := v.(type) {
	case []any:
		if t.Kind() != reflect.Slice {
			return v, nil
		}
		for i := range v {
			var err error
			if v[i], err = convertTimes(t.Elem(), v[i], path+"["+strconv.Itoa(i)+"]", convert); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		if t.Kind() != reflect.Struct {
			return v, nil
		}
		for field := range t.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			for key, value := range v {
				if !strings.EqualFold(key, name) { // as encoding/json matches them
					continue
				}
				converted, err := convertTimes(field.Type, value, strings.TrimPrefix(path+"."+name, "."), convert)
				if err != nil {
					return nil, err
				}
				v[key] = converted
			}
		}
	}
	return v, nil
}

const day = 24 * time.Hour

// parseTime is time.ParseDuration with days.
func parseTime(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 16)
		return time.Duration(n) * day, err
	}
	return time.ParseDuration(s)
}

func formatTime(d time.Duration) string {
	if d%day == 0 && d != 0 && d/day < 1<<15 && d > 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	return d.String()
}
