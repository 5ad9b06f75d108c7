// What a stream can show: its width, and colours where a person looks.
import { styleText } from 'node:util'

type Style = (text: string) => string

/** Styles and width of a stream; plain text and 80 columns where it is no terminal. */
export interface Terminal {
  readonly columns: number
  readonly interactive: boolean
  /** How many colours it shows; 1 where it shows none. */
  readonly colours: number
  readonly bold: Style
  readonly dim: Style
  readonly red: Style
  readonly green: Style
  readonly cyan: Style
}

export function terminal(stream: NodeJS.WriteStream): Terminal {
  const interactive = stream.isTTY === true
  const coloured = interactive && (stream.hasColors?.() ?? false)
  const style = (name: 'bold' | 'dim' | 'red' | 'green' | 'cyan'): Style => {
    return coloured ? (text) => styleText(name, text) : (text) => text
  }
  const [bold, dim, red, green, cyan] = [style('bold'), style('dim'), style('red'), style('green'), style('cyan')]
  const colours = coloured ? 2 ** stream.getColorDepth() : 1
  return { columns: stream.columns || 80, interactive, colours, bold, dim, red, green, cyan }
}

/** Where the output of a command goes: the terminal, or a file, which is plain and as wide as a page. */
export function screenFor(out: string | undefined): Terminal {
  const screen = terminal(process.stdout)
  return out === undefined
    ? screen
    : { ...screen, columns: 100, colours: 1, bold: String, dim: String, red: String, green: String, cyan: String }
}
