// The same component rendered on the server: attributes are there, and importing it touched no window.
import { Editor } from '../editor';

export default function Page() {
  return <Editor />;
}
