'use client';
// React attaches objects and listeners to an element that it renders itself, not to one that came from the server.
import dynamic from 'next/dynamic';

const Editor = dynamic(() => import('./editor').then((module) => module.Editor), { ssr: false });

export default function Page() {
  return <Editor />;
}
