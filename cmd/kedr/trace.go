package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kedr/internal/kernel"
	"kedr/internal/session"
	"kedr/internal/trace"
)

func newTrace() *cobra.Command {
	var opts session.TraceOptions
	cmd := &cobra.Command{
		Use: "trace",
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := kernel.Running()
			if err != nil {
				return err
			}
			m, err := findTarget(k, args[0])
			if err != nil {
				return err
			}
			opts.Describe = func(name, module string) (trace.Function, error) {
				f := trace.Function{Name: name}
				params, err := k.Params(name)
				if err != nil {
					return f, err
				}
				f.Known = true
				for i, p := range params {
					f.Params = append(f.Params, trace.Param{Name: p.Name, Slot: i, Type: trace.Type{Class: trace.Int, Size: p.Size}})
				}
				f.Result = trace.Type{Class: trace.Int, Size: 8}
				return f, nil
			}
			start := time.Now()
			s, err := session.Arm(nil, k, session.Options{Trace: &opts, NoLeaks: true}, m)
			if err != nil {
				return err
			}
			defer s.Close()
			fmt.Fprintln(os.Stderr, "armed in", time.Since(start))
			r, err := s.Trace()
			if err != nil {
				return err
			}
			ctx, stop := context.WithCancel(cmd.Context())
			done := make(chan error)
			go func() {
				done <- r.Copy(ctx, func(rec *trace.Record) error {
					b, err := json.Marshal(rec)
					if rec.Event != nil {
						os.Stdout.WriteString(r.Header().Functions[rec.Event.Function].Name + " ")
					}
					os.Stdout.Write(append(b, '\n'))
					return err
				}, nil)
			}()
			fmt.Fprintln(os.Stderr, "load", kernel.Load(m.Image(), args[1:]))
			fmt.Fprintln(os.Stderr, "unload", unload(m.Name))
			stop()
			err = <-done
			lost, lerr := r.Lost()
			fmt.Fprintln(os.Stderr, "lost", lost, lerr, "untraced", r.Header().Untraced, r.Header().Off, len(r.Header().Functions))
			return err
		},
	}
	cmd.Flags().BoolVar(&opts.All, "all", false, "")
	cmd.Flags().BoolVar(&opts.Errors, "errors", false, "")
	cmd.Flags().StringVar((*string)(&opts.How), "probes", "trampoline", "")
	return cmd
}
