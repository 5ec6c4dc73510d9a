package report

import (
	"encoding/json"
	"io"

	"kedr/internal/leak"
)

func writeJSON(w io.Writer, r *leak.Report, _ Options) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}
