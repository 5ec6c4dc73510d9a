package manual

import (
	"bytes"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the golden files anew")

// example has all that could be taken for something else in a page's source.
func example() *cobra.Command {
	root := &cobra.Command{
		Use:   "tool",
		Short: "Do one thing, and it's done",
		Long: `Tool reads /sys/<name>/x_y_z and C:\n; 'quoted', "twice", ` + "`thrice`" + `, ~ and ^.

.dot begins a line, 'and so does a quote:

  a  table
    - kept | as it is
  .b [here]`,
		Example: "  tool -n 1\n\n  .hidden | tool",
		RunE:    func(*cobra.Command, []string) error { return nil },
	}
	root.Flags().IntP("number", "n", 3, "the `NUMBER` of things, one|two")
	root.Flags().Bool("secret", false, "nobody's business")
	root.Flags().MarkHidden("secret")
	sub := &cobra.Command{
		Use:   "sub [flags] FILE",
		Short: "Do another",
		Long: `Sub does another.

Exit status:
  0  done
  10 not done, for
     reasons

It is over then.`,
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	text := &cobra.Command{Use: "text", Short: "Say it", Long: "Text.\n\nExit status: that of others,\nif any.", RunE: sub.RunE}
	root.AddCommand(sub, text, &cobra.Command{Use: "hidden", Hidden: true, RunE: sub.RunE})
	return root
}

func TestPages(t *testing.T) {
	m := &Manual{
		Version: "1.0-2", Date: time.Date(2023, 11, 14, 23, 0, 0, 0, time.FixedZone("", -3600)),
		Exit: []Item{{"0", "done"}}, Files: []Item{{"/a/b", "a file"}}, Environment: []Item{{"X_Y", "a variable"}},
	}
	list := Commands(example())
	if len(list) != 3 {
		t.Fatalf("%d commands", len(list))
	}
	for _, c := range list {
		for ext, write := range map[string]func(*bytes.Buffer) error{
			".1":  func(b *bytes.Buffer) error { return m.Man(b, c) },
			".md": func(b *bytes.Buffer) error { return m.Markdown(b, c) },
		} {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			golden := "testdata/" + Name(c) + ext
			if *update {
				if err := os.WriteFile(golden, b.Bytes(), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("%s: -want +got:\n%s", golden, d)
			}
		}
	}
}
