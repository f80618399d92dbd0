// Health asks what GitOps tools ask of an object: Argo CD's health script, by the Lua machine that Argo CD runs it in, and
// Flux's health expressions, by the CEL library that Flux evaluates them with.
//
// It reads {"lua": SCRIPT, "cel": {NAME: EXPRESSION}, "objects": [OBJECT, …]} and writes for each object
// {"lua": TABLE, "cel": {NAME: true | false | "error: …"}}.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/google/cel-go/cel"
	lua "github.com/yuin/gopher-lua"
)

type question struct {
	Lua     string            `json:"lua"`
	Cel     map[string]string `json:"cel"`
	Objects []map[string]any  `json:"objects"`
}

type answer struct {
	Lua any            `json:"lua"`
	Cel map[string]any `json:"cel"`
}

func main() {
	var q question
	if err := json.NewDecoder(os.Stdin).Decode(&q); err != nil {
		fail(err)
	}
	answers := make([]answer, 0, len(q.Objects))
	for _, object := range q.Objects {
		health, err := luaHealth(q.Lua, object)
		if err != nil {
			fail(err)
		}
		evaluated := map[string]any{}
		for name, expression := range q.Cel {
			value, err := celHealth(expression, object)
			if err != nil {
				value = "error: " + err.Error()
			}
			evaluated[name] = value
		}
		answers = append(answers, answer{Lua: health, Cel: evaluated})
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// luaHealth runs the script with the object as the global obj; what it returns is the health.
func luaHealth(script string, object map[string]any) (map[string]string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	// No more than Argo CD opens where useOpenLibs is off.
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage},
		{lua.BaseLibName, lua.OpenBase},
		{lua.TabLibName, lua.OpenTable},
		{lua.StringLibName, lua.OpenString},
	} {
		opened := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(opened, lua.LString(library.name)); err != nil {
			return nil, err
		}
	}
	state.SetGlobal("obj", luaValue(state, object))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return nil, fmt.Errorf("the script returned %s", state.Get(-1).Type())
	}
	health := map[string]string{}
	table.ForEach(func(key, value lua.LValue) { health[key.String()] = value.String() })
	return health, nil
}

func luaValue(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case string:
		return lua.LString(value)
	case bool:
		return lua.LBool(value)
	case float64:
		return lua.LNumber(value)
	case []any:
		table := state.NewTable()
		for _, item := range value {
			table.Append(luaValue(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range value {
			table.RawSetString(key, luaValue(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}

// celHealth evaluates the expression with the object's top-level fields as variables, parsed and not checked, as Flux does.
func celHealth(expression string, object map[string]any) (any, error) {
	env, err := cel.NewEnv(cel.CrossTypeNumericComparisons(true), cel.OptionalTypes())
	if err != nil {
		return nil, err
	}
	ast, issues := env.Parse(expression)
	if issues.Err() != nil {
		return nil, issues.Err()
	}
	program, err := env.Program(ast)
	if err != nil {
		return nil, err
	}
	result, _, err := program.Eval(object)
	if err != nil {
		return nil, err
	}
	return result.Value(), nil
}
